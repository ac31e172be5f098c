"""What an import brings along: TensorFlow only where it is the backend, Keras not for `--help`."""

import pytest
from backends import BLOCK, run

pytestmark = pytest.mark.any_backend  # processes of each backend


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_keras_apa_and_zoo_work_without_tensorflow(backend):
    blocked = ("tensorflow", "keras_cv", "sklearn", "tensorflow_datasets", "matplotlib", "tyro")
    program = BLOCK.format(blocked=blocked) + (
        "import keras, numpy as np, keras_apa, zoo\n"
        "model = zoo.create_model('se_resnet8', classes=3, activation='aglu', gate='apa')\n"
        "model.compile('sgd', keras_apa.losses.BalancedSoftmaxCrossentropy([9, 5, 2]))\n"
        "x, y = np.ones((4, 32, 32, 3), 'float32'), np.array([0, 1, 2, 0])\n"
        "model.fit(x, y, verbose=0)\n"
        "print('trained on', keras.backend.backend())\n"
    )
    result = run(backend, "-c", program)
    assert f"trained on {backend}" in result.stdout, result.stderr[-2000:]


def test_import_and_a_model_do_not_bring_tensorflow_to_other_backends():
    program = (
        "import sys, keras_apa, zoo\n"
        "zoo.se_resnet8(activation='aglu', gate='apa')\n"
        "print([m for m in ('tensorflow', 'torch') if m in sys.modules])"
    )
    result = run("jax", "-c", program)
    assert result.stdout.strip() == "[]", result.stderr[-2000:]
