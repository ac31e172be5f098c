"""COCO and LVIS metrics of detections: results in COCO's format, average precision, and a callback for `fit`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import keras
import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from training.checks import check_choice, check_whole
from training.data.detection.coco_fields import LISTS, object_area, segmentation_of
from training.data.detection.masks import encode_mask, is_finite
from training.data.detection.source import fitting_scale
from zoo.detection.transform import resize_image
from zoo.value_range import values_known, warn_of_range

STYLES = ("coco", "lvis")
KINDS = ("box", "mask")
MAX_DETECTIONS = {"coco": 100, "lvis": 300}
GROUPS = ("r", "c", "f")
_AREAS = {"s": "small", "m": "medium", "l": "large"}
_NO_SIZE = 1e11  # larger than every range of areas: a match with such an object counts neither as right nor as wrong
_RESULT_KEYS = {"box": "bbox", "mask": "segmentation"}


def detect(
    model: keras.Model,
    images: Iterable[tuple[int, np.ndarray]],
    image_size: tuple[int, int],
    batch_size: int = 8,
    shorter_side: int = 0,
) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """The detections of each image, as `predict_images` gives them, with one compilation for images of all sizes.

    An image is resized to fit into `image_size`, its sides in proportion, and padded to it; the last batch is filled
    up. Boxes and masks are in the pixels of the given image.

    Args:
        model: A detector of the zoo.
        images: Pairs of an id and a uint8 array `(height, width, 3)`.
        image_size: Height and width of what the network sees.
        batch_size: Images at a time.
        shorter_side: The most pixels of a resized image's shorter side; 0 for no such bound.

    Yields: The id and a dict with `boxes`, `scores`, `labels`, and `masks` of a Mask R-CNN, best first.
    """
    check_whole("batch_size", batch_size, at_least=1)
    batch: list[tuple[int, np.ndarray]] = []
    for each in images:
        batch.append(each)
        if len(batch) == batch_size:
            yield from _detect_batch(model, batch, image_size, batch_size, shorter_side)
            batch = []
    if batch:
        yield from _detect_batch(model, batch, image_size, batch_size, shorter_side)


def _detect_batch(model, batch, image_size, batch_size, shorter_side):
    warn_of_range(model, [image for _, image in batch], stacklevel=4)
    pixels = np.zeros((batch_size, *image_size, 3), "float32")
    sizes = np.ones((batch_size, 2), "int32")
    for place, (_, image) in enumerate(batch):
        scale = fitting_scale(image.shape[:2], image_size, shorter_side)
        sizes[place] = [max(int(side * scale + 0.5), 1) for side in image.shape[:2]]
        height, width = sizes[place]
        pixels[place, :height, :width] = resize_image(image, (height, width))
    with values_known(model):
        found = model.predict_on_batch({"images": pixels, "image_size": sizes})
    found = {key: np.asarray(value) for key, value in found.items()}
    for place, (name, image) in enumerate(batch):
        one = {key: value[place] for key, value in found.items()}
        yield name, model.to_image(one, sizes[place], image.shape[:2])


def coco_results(
    detections: Iterable[tuple[int, Mapping[str, np.ndarray]]], category_ids: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """Detections in COCO's results format, ready for `json.dump`.

    Args:
        detections: Pairs of an image id and what `detect` or `predict_images` gives for it.
        category_ids: The category id of each label.

    Returns: One dict a detection: `image_id`, `category_id`, `score`, `bbox` `[x, y, width, height]`, and with masks
        `segmentation`, run lengths as `{"size": [height, width], "counts": text}`.

    >>> found = {"boxes": np.array([[1.0, 2.0, 4.0, 8.0]]), "scores": np.array([0.5]), "labels": np.array([1])}
    >>> coco_results([(7, found)], category_ids=[3, 9])
    [{'image_id': 7, 'category_id': 9, 'score': 0.5, 'bbox': [1.0, 2.0, 3.0, 6.0]}]
    """
    results = []
    for image_id, found in detections:
        boxes = np.asarray(found["boxes"], "float64")
        boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        for place, (box, score, label) in enumerate(zip(boxes, found["scores"], found["labels"], strict=True)):
            result = {
                "image_id": int(image_id),
                "category_id": int(category_ids[int(label)]),
                "score": float(score),
                "bbox": [float(value) for value in box],
            }
            if "masks" in found:
                result["segmentation"] = encode_mask(found["masks"][place])
            results.append(result)
    return results


@dataclasses.dataclass(frozen=True, kw_only=True)
class DetectionMetrics:
    """Average precisions from 0 to 1; NaN for what the test images have no object for.

    `summary` maps `box_AP`, `box_AP50`, `box_AP75`, `box_APs`, `box_APm`, `box_APl` (by area), and where the categories
    have a `frequency`, `box_APr`, `box_APc`, `box_APf` and the same at IoU 0.5 alone, `box_AP50r`, ...; then the same
    with `mask_`. `by_class` and `by_class50` map `box` and `mask` to the AP of each category, in the order of
    `category_ids`.
    """

    summary: Mapping[str, float]
    category_ids: Sequence[int] | np.ndarray
    by_class: Mapping[str, Sequence[float]]
    by_class50: Mapping[str, Sequence[float]]


def evaluate_detections(
    annotations: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    *,
    style: str = "coco",
    kinds: Sequence[str] = KINDS,
    max_detections: int | None = None,
) -> DetectionMetrics:
    """COCO's or LVIS's average precision of detections.

    IoU 0.5, 0.55, ... 0.95 and 101 points of recall in both. COCO counts the best 100 detections of an image in each
    class; LVIS the best 300 of an image over all classes, of classes that the image's annotators looked for, which
    `neg_category_ids` of an image names beside those that are there. Images without this key count as fully annotated.
    An annotation without an `area` above 0 has that of its segmentation, or of its box if there is none.

    COCO passes over regions with `iscrowd` 1 and does not use `ignore`. LVIS passes over objects with `ignore` and
    measures those with `iscrowd` 1 like all others.

    Args:
        annotations: The test annotations in COCO's format: `images`, `annotations`, `categories`; with the style
            `"lvis"` each category has its `frequency`: r, c or f.
        results: Detections in COCO's results format, see `coco_results`.
        style: `"coco"` or `"lvis"`.
        kinds: `"box"`, `"mask"` or both.
        max_detections: Instead of 100 and 300.

    Raises: ValueError: An unknown style or kind, a result or an annotation of an image or a category that there is not,
        boxes and scores that are no finite numbers, masks that are missing in results or annotations, a category
        without `frequency` (LVIS).
    Source: the metrics of the COCO and LVIS challenges; computed by faster-coco-eval.
    """
    check_choice("style", style, STYLES)
    for kind in kinds:
        check_choice("kinds", kind, KINDS)
    most = MAX_DETECTIONS[style] if max_detections is None else max_detections
    check_whole("max_detections", most, at_least=1)
    results = list(results)
    _check_fields(annotations, results, kinds)
    dataset = _dataset(annotations, style)
    _check_results(dataset, results, kinds)
    if style == "lvis":
        results = _best_of_image(results, most)
    category_ids = sorted(category["id"] for category in dataset["categories"])
    frequency = {category["id"]: category.get("frequency") for category in dataset["categories"]}
    summary, by_class, by_class50 = {}, {}, {}
    for kind in kinds:
        precision, areas = _precision(dataset, results, kind, style, most)
        everywhere = precision[..., 0]  # IoU, recall, class
        by_class[kind] = _means(everywhere)
        by_class50[kind] = _means(everywhere[:1])
        summary[f"{kind}_AP"] = _mean(by_class[kind])
        summary[f"{kind}_AP50"] = _mean(by_class50[kind])
        summary[f"{kind}_AP75"] = _mean(_means(everywhere[5:6]))
        for letter, area in _AREAS.items():
            summary[f"{kind}_AP{letter}"] = _mean(_means(precision[..., areas.index(area)]))
        if any(frequency.values()):
            for group in GROUPS:
                of_group = np.array([frequency[each] == group for each in category_ids])
                summary[f"{kind}_AP{group}"] = _mean(by_class[kind][of_group])
                summary[f"{kind}_AP50{group}"] = _mean(by_class50[kind][of_group])
    return DetectionMetrics(
        summary=summary,
        category_ids=category_ids,
        by_class={kind: values.tolist() for kind, values in by_class.items()},
        by_class50={kind: values.tolist() for kind, values in by_class50.items()},
    )


def _dataset(annotations, style):
    """A copy whose annotations count from 1 (0 stands for "not matched" in COCO's code) and have what is asked for."""
    categories = [dict(category) for category in annotations["categories"]]
    for category in categories:
        if style == "lvis" and category.get("frequency") not in GROUPS:
            raise ValueError(
                "frequency must be r, c or f for each category with LVIS's metrics; given: "
                f"{category.get('frequency')!r} for {category.get('name')!r}."
            )
    images = [dict(image) for image in annotations["images"]]
    if style == "lvis":
        for image in images:
            usual: tuple[list[int], list[int]] = ([category["id"] for category in categories], [])
            image.update({key: value for key, value in zip(LISTS, usual, strict=True) if image.get(key) is None})
    sizes = {image["id"]: (image.get("height"), image.get("width")) for image in images}
    objects = []
    for index, each in enumerate(annotations["annotations"], start=1):
        area = object_area(each, *sizes.get(each["image_id"], (None, None)))
        crowd = each.get("iscrowd") or 0
        if style == "lvis":
            area, crowd = _NO_SIZE if each.get("ignore") else area, 0
        each = {**each, "id": index, "iscrowd": crowd, "area": area, "segmentation": segmentation_of(each)}
        objects.append({key: value for key, value in each.items() if value is not None})
    return {"info": {}, "images": images, "annotations": objects, "categories": categories}


def _check_fields(annotations, results, kinds):
    """An error that names a field: COCO's code measures nothing with some, and fails without a name on others."""
    for key, many in (("image_id", "images"), ("category_id", "categories")):
        known = {each["id"] for each in annotations[many]}
        if wrong := [number for number in known if not isinstance(number, Real)]:
            raise ValueError(f"id of {many} must be whole numbers; given: {wrong[0]!r}.")
        for what, entries in (("an annotation", annotations["annotations"]), ("a result", results)):
            for value in (each.get(key) for each in entries):
                if not isinstance(value, Real) or value not in known:
                    where = f"among the ids of {many}" if what == "an annotation" else "in the annotations"
                    raise ValueError(f"{key} of {what} must be {where}; given: {value!r:.80}.")
    for each in annotations["annotations"]:
        if each.get("iscrowd") not in (None, 0, 1):
            raise ValueError(f"iscrowd of an annotation must be 0 or 1; given: {each['iscrowd']!r:.80}.")
    boxes = [each.get("bbox") for each in annotations["annotations"] if "box" in kinds or "bbox" in each]
    _check_numbers("bbox of an annotation", boxes, 4)
    _check_numbers("score of a result", [[each.get("score")] for each in results], 1)
    if "box" in kinds:
        _check_numbers("bbox of a result", [each.get("bbox") for each in results], 4)
    if "mask" in kinds:
        sizes = {image["id"]: [image.get("height"), image.get("width")] for image in annotations["images"]}
        for each in results:
            mask = each.get("segmentation", {"size": sizes[each["image_id"]], "counts": ""})  # a missing one is told
            if not isinstance(mask, Mapping) or not isinstance(mask.get("counts"), str | bytes):
                raise ValueError(
                    "segmentation of a result must be run lengths as a text, with size and counts, see coco_results; "
                    f"given: {mask!r:.80}."
                )
            if list(mask.get("size") or ()) != sizes[each["image_id"]]:
                raise ValueError(
                    "size of a result's segmentation must be height and width of its image, "
                    f"{sizes[each['image_id']]}; given: {mask.get('size')!r:.80}."
                )


def _check_numbers(what, values, length):
    """An error for the first of the values that is not so many finite numbers."""
    try:
        array = np.array(values)  # there may be millions of them
        if array.dtype.kind in "fiu" and array.shape[1:] == (length,) and np.isfinite(array).all():
            return
    except (TypeError, ValueError):
        pass
    for value in values:
        numbers = value if isinstance(value, list | tuple | np.ndarray) else [None]
        right = all(isinstance(x, Real) and not isinstance(x, bool) and is_finite(x) for x in numbers)
        if len(numbers) != length or not right:
            meant = "four finite numbers x, y, width, height" if length == 4 else "a finite number"
            raise ValueError(f"{what} must be {meant}; given: {value[0] if length == 1 else value!r:.80}.")


def _check_results(dataset, results, kinds):
    for kind in kinds:
        key = _RESULT_KEYS[kind]
        if any(key not in result for result in results):
            raise ValueError(f"kinds must be what every result has; given: {kind!r}, but a result has no {key!r}.")
        if any(not each.get(key) for each in dataset["annotations"]):
            raise ValueError(
                f"kinds must be what every annotation has; given: {kind!r}, but an annotation has no {key!r}."
            )


def _best_of_image(results, most):
    """As LVIS has it, the best of an image over all classes."""
    by_image: dict[int, list] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    return [result for each in by_image.values() for result in sorted(each, key=lambda result: -result["score"])[:most]]


def _precision(dataset, results, kind, style, most):
    """Precision by IoU, recall, class and area, -1 where there is no object; and the names of the areas."""
    # The area of a result is that of its mask only where it has no box, in COCO's code and here.
    wanted = ("image_id", "category_id", "score", _RESULT_KEYS[kind])
    truth = COCO({**dataset, "annotations": [dict(each) for each in dataset["annotations"]]})
    found = truth.loadRes([{key: _plain(result[key]) for key in wanted} for result in results])
    evaluation = COCOeval_faster(
        truth, found, iouType="bbox" if kind == "box" else "segm", lvis_style=style == "lvis", separate_eval=True
    )
    evaluation.params.maxDets = [most]
    evaluation.evaluate()
    evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[..., -1], list(evaluation.params.areaRngLbl)


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _means(precision):
    """The mean over IoU and recall of each class; NaN for a class without objects."""
    classes = precision.reshape(-1, precision.shape[-1])
    present = (classes > -1).all(axis=0)
    return np.where(present, classes.mean(axis=0), np.nan)


def _mean(values):
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


class DetectionEvaluation(keras.callbacks.Callback):
    """Measures the detections in the test images after epochs, and logs them for what comes behind it.

    Adds `val_box_AP`, `val_box_AP50`, `val_mask_AP`, ... to the logs of `fit`: put it before the callbacks that read
    them. An epoch without measurement logs NaN, so that every series has one number an epoch. `metrics` is the last
    `DetectionMetrics`, `results` what it was computed from.

    Args:
        images: What `detect` takes, as a callable without arguments that starts anew each time.
        annotations: As `evaluate_detections` takes them.
        category_ids: The category id of each label.
        image_size: Height and width of what the network sees.
        batch_size, shorter_side: As in `detect`.
        style: `"coco"` or `"lvis"`.
        every_epochs: Epochs between two measurements; the last epoch is always measured.
    """

    def __init__(
        self,
        images,
        annotations: Mapping[str, Any],
        category_ids: Sequence[int] | np.ndarray,
        image_size: tuple[int, int],
        *,
        batch_size: int = 8,
        shorter_side: int = 0,
        style: str = "coco",
        every_epochs: int = 1,
    ):
        super().__init__()
        check_choice("style", style, STYLES)
        check_whole("every_epochs", every_epochs, at_least=1)
        self.images = images
        self.annotations = annotations
        self.category_ids = category_ids
        height, width = image_size
        self.image_size = (height, width)
        self.batch_size = batch_size
        self.shorter_side = shorter_side
        self.style = style
        self.every_epochs = every_epochs
        self.metrics: DetectionMetrics | None = None
        self.results: list[dict[str, Any]] = []

    def measure(self, model: keras.Model) -> DetectionMetrics:
        """Detects and measures now."""
        found = detect(model, self.images(), self.image_size, self.batch_size, self.shorter_side)
        self.results = coco_results(found, self.category_ids)
        kinds = KINDS if model.has_masks else ("box",)
        self.metrics = evaluate_detections(self.annotations, self.results, style=self.style, kinds=kinds)
        return self.metrics

    def on_epoch_end(self, epoch, logs=None):
        last = epoch + 1 >= self.params["epochs"]
        if (epoch + 1) % self.every_epochs and not last:
            values: Mapping[str, float] = dict.fromkeys(logged_names(self.model, self.annotations), float("nan"))
        else:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            values = self.measure(self.model).summary
        if logs is not None:
            logs.update({f"val_{name}": value for name, value in values.items()})


def logged_names(model: keras.Model, annotations: Mapping[str, Any]) -> list[str]:
    """The names in `DetectionMetrics.summary` for this model and these annotations."""
    grouped = any(category.get("frequency") for category in annotations["categories"])
    groups = [f"AP{most}{group}" for group in GROUPS for most in ("", "50")] if grouped else []
    names = ["AP", "AP50", "AP75", *(f"AP{letter}" for letter in _AREAS), *groups]
    return [f"{kind}_{name}" for kind in (KINDS if model.has_masks else KINDS[:1]) for name in names]
