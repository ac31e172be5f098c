"""Every data set of detection that a recipe can name, and how it is made from the recipe's options."""

from __future__ import annotations

from training.checks import check_name
from training.config.detection import DetectionDataOptions
from training.data.detection.digit_scenes import digit_scenes_lt
from training.data.detection.source import DetectionSource
from training.errors import OptionError


def _digit_scenes(options: DetectionDataOptions, masks: bool) -> DetectionSource:
    return digit_scenes_lt(
        num_train=options.num_train,
        num_test=options.num_test,
        image_size=options.image_size,
        imbalance_factor=options.imbalance_factor,
        seed=options.seed,
    )


def _coco(options: DetectionDataOptions, masks: bool) -> DetectionSource:
    from training.data.detection.coco import coco_source

    for name, what in (("train", "the JSON file of the training images"), ("images", "the folder of the images")):
        if not getattr(options, name):
            raise OptionError(f"data.{name} must be {what}; given: ''.")
    return coco_source(
        options.train,
        options.images,
        options.test or None,
        test_images=options.test_images or None,
        validation_fraction=options.validation_fraction,
        seed=options.seed,
        empty_images=options.empty_images,
        # By default they are read where they are there, and have to be there for every object then.
        masks=None if masks else False,
    )


DETECTION_DATA_SETS = {"digit_scenes_lt": _digit_scenes, "coco": _coco}


def check_detection_data(options: DetectionDataOptions) -> None:
    """Raises a ValueError that names the nearest data sets if there is none of that name."""
    check_name("data.name", options.name, DETECTION_DATA_SETS)


def load_detection_source(options: DetectionDataOptions, masks: bool = True) -> DetectionSource:
    """The annotated images that `options` describe; `masks=False` where only boxes are wanted.

    Raises: ValueError or FileNotFoundError: An unknown name, or files that are not there or cannot be used.

    >>> load_detection_source(DetectionDataOptions(num_train=20, num_test=4)).num_classes
    10
    """
    check_detection_data(options)
    return DETECTION_DATA_SETS[options.name](options, masks)
