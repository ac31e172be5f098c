"""The packages that are installed with keras_apa, `zoo` and `training`, whose names other files may have too.

`from keras_apa import zoo, training` gives the installed ones, or an error that names the file in the way. A model of
the zoo, or one that a training has saved on its way, loads with keras_apa alone: Keras finds stand-ins for the classes
of these packages, which import them when used.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any, NoReturn

import keras

NAMES = ("training", "zoo")

# What `import zoo` registers with Keras as "keras_apa>NAME".
_ZOO_CLASSES = (
    "BoxHead",
    "ClassMaps",
    "Classifier",
    "DetectionPreprocessing",
    "FasterRCNN",
    "FeaturePyramid",
    "MaskHead",
    "MaskRCNN",
    "PadShortcut",
    "PaddedMaxPooling",
    "Preprocessing",
    "ProposalHead",
)
# What modules of `training` register likewise; importing the package imports none of them.
_TRAINING_CLASSES = {
    "ClassScale": "training.classification.network",
    "EpochCosine": "training.engine.optimizers",
    "MultiStep": "training.engine.optimizers",
    "SamplingRates": "training.classification.meta_sampler",
    "TorchSGD": "training.engine.optimizers",
    "WarmupCosine": "training.engine.optimizers",
}


def sibling(name: str) -> ModuleType:
    """The installed package of that name. It is looked for first: importing another file would run it."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), name)
    place = _place_of(name)
    if place is None or os.path.realpath(os.path.dirname(place)) != os.path.realpath(folder):
        given = "no such package" if place is None else f"{place}. Rename it, or run Python from another folder"
        raise ImportError(f"{name} must be the package that is installed with keras_apa, {folder}; given: {given}.")
    return importlib.import_module(name)


def _place_of(name: str) -> str | None:
    """The file that `import name` runs or has run, or the folder of a package without `__init__.py`; else None."""
    module = sys.modules.get(name)
    spec = importlib.util.find_spec(name) if module is None else getattr(module, "__spec__", None)
    file: str | None = getattr(module, "__file__", None)
    if file:
        return file
    if spec is None or spec.has_location:
        return None if spec is None else spec.origin
    return next(iter(spec.submodule_search_locations or ()), None)


def register_stand_ins() -> None:
    """Let Keras find these classes in files; their modules put them in the place of the stand-ins."""
    for name in (*_ZOO_CLASSES, *_TRAINING_CLASSES):
        if f"keras_apa>{name}" not in keras.saving.get_custom_objects():
            keras.saving.register_keras_serializable(package="keras_apa", name=name)(type(name, (_StandIn,), {}))


class _StandIn:
    """Makes an object of the class of its name."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        module = _TRAINING_CLASSES.get(cls.__name__, "zoo")
        sibling(module.partition(".")[0])
        importlib.import_module(module)
        # Not `get_registered_object`: while Keras loads a model, that finds what was registered when it began.
        return keras.saving.get_custom_objects()[f"keras_apa>{cls.__name__}"].from_config(config)

    def get_config(self) -> NoReturn:
        """Keras registers no class without this method. There are no objects of a stand-in."""
        raise TypeError(
            f"{type(self).__name__} must be the class itself; given: its stand-in. Import its module first."
        )
