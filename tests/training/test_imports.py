"""What the top of the package gives, what it costs to import, and the documented imports of before."""

import subprocess
import sys
import warnings

import pytest
from backends import environment

import training
import training.detection
from training.classification import evaluate, train
from training.detection import metrics
from training.detection import train as train_detector

pytestmark = pytest.mark.any_backend


def test_the_top_gives_what_a_notebook_needs():
    assert training.train is train.train
    assert training.evaluate is evaluate.evaluate
    assert training.train_detector is train_detector.train_detector
    assert training.get_recipe("digits10_lt").name in training.list_recipes("digits*")
    assert {*training.__all__} <= {*dir(training)}
    with pytest.raises(AttributeError, match="'training' has no attribute 'fit'"):
        training.fit  # noqa: B018


def test_importing_training_imports_neither_keras_nor_tensorflow():
    program = "import sys, training; assert not {'keras', 'tensorflow', 'rich'} & {*sys.modules}, 'imported'"
    result = subprocess.run([sys.executable, "-c", program], env=environment("torch"), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_documented_imports_of_before_warn_and_give_the_same():
    with pytest.warns(DeprecationWarning, match=r"training.evaluation.detect is training.detection.metrics.detect now"):
        from training.evaluation import detect
    with pytest.warns(DeprecationWarning, match="training.data.detection.pipeline.detection_evaluation_images now"):
        from training.data.detection_pipeline import detection_evaluation_images
    with pytest.warns(DeprecationWarning, match="training.detection.train.load_source_of now"):
        from training.detection import load_source_of
    with pytest.warns(DeprecationWarning, match="training.detection.train.train_detector now"):
        assert training.detection.train_detector is train_detector.train_detector
    assert detect is metrics.detect and load_source_of is train_detector.load_source_of
    assert detection_evaluation_images.__module__ == "training.data.detection.pipeline"


@pytest.mark.parametrize("module", ["training.evaluation", "training.data.detection_pipeline"])
def test_every_old_name_is_there(module):
    old = __import__(module, fromlist=["_NAMES"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert all(callable(getattr(old, name)) for name in old._NAMES)
    with pytest.raises(AttributeError, match=f"'{module}' has no attribute 'nothing'"):
        old.nothing  # noqa: B018
