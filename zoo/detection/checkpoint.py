"""State dicts of torchvision's Faster and Mask R-CNN to a detector of the zoo, and back.

torchvision has the background first: a row of the classifier that is our last, and rows of box deltas and a mask that
no loss and no detection ever uses, which have no place here. On the way back those are zeros.
"""

import dataclasses
import re

import keras
import numpy as np

from zoo.checkpoint_files import read_state_dict
from zoo.detect import detect_architecture
from zoo.detection.backbone import set_batch_norm_epsilon
from zoo.registry import create_model
from zoo.torch_tensors import TorchTensor, assign, check_same, compare, torch_tensors

BODY = "backbone.body."
CLASSIFIER = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
_BODY_OPTIONS = ("activation", "gate", "gate_normalization", "spatial_gate", "stem")
# What torchvision renamed in 0.13; its published COCO_V1 files still have the old names.
_OLD_NAMES = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
)


def torchvision_tensors(detector, skip_classifier=False):
    """The tensors of torchvision's state dict of the detector, each with the variable that holds it.

    Args:
        detector: A `FasterRCNN` or `MaskRCNN`.
        skip_classifier: Leave out class logits, box deltas and mask maps, which depend on the classes and on the loss.

    Raises: ValueError: For a detector that torchvision's layout has no place for: no softmax with background, another
        classifier than a linear one, deltas that all classes share.

    >>> from zoo.detection import FasterRCNN
    >>> from zoo.detection.checkpoint import torchvision_tensors
    >>> detector = FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16)
    >>> {tensor.key: tensor.shape for tensor in torchvision_tensors(detector)}["rpn.head.cls_logits.weight"]
    (3, 8, 1, 1)
    """
    head = detector.box_head
    if not skip_classifier:
        _check_classifier(detector)
    for tensor in torch_tensors(detector.backbone):
        yield dataclasses.replace(tensor, key=BODY + tensor.key)
    for level, (lateral, output) in enumerate(zip(detector.fpn.laterals, detector.fpn.outputs, strict=True)):
        yield from _layer(lateral, f"backbone.fpn.inner_blocks.{level}.0", _CONV)
        yield from _layer(output, f"backbone.fpn.layer_blocks.{level}.0", _CONV)
    proposals = detector.proposal_head
    yield from _layer(proposals.conv, "rpn.head.conv.0.0", _CONV)
    yield from _layer(proposals.objectness, "rpn.head.cls_logits", _CONV)
    yield from _layer(proposals.deltas, "rpn.head.bbox_pred", _CONV)
    channels = detector.pyramid_filters
    # Features are flattened as (channels, y, x) there and as (y, x, channels) here.
    flatten = (
        lambda w: w.T.reshape(-1, 7, 7, channels).transpose(0, 3, 1, 2).reshape(w.shape[1], -1),
        lambda w: w.reshape(-1, channels, 7, 7).transpose(2, 3, 1, 0).reshape(-1, w.shape[0]),
    )
    yield from _layer(head.dense1, "roi_heads.box_head.fc6", flatten)
    yield from _layer(head.dense2, "roi_heads.box_head.fc7", (np.transpose, np.transpose))
    if not skip_classifier:
        yield from _classifier_tensors(head)
    mask_head = getattr(detector, "mask_head", None)
    if mask_head is not None:
        for i, conv in enumerate(mask_head.convs):
            yield from _layer(conv, f"roi_heads.mask_head.{i}.0", _CONV)
        transposed = (lambda w: w.transpose(3, 2, 0, 1), lambda w: w.transpose(2, 3, 1, 0))
        yield from _layer(mask_head.upsample, "roi_heads.mask_predictor.conv5_mask", transposed)
        if not skip_classifier:
            yield from _layer(mask_head.predictor, "roi_heads.mask_predictor.mask_fcn_logits", _MAPS, _dropping(1))


def _check_classifier(detector):
    head = detector.box_head
    if detector.region_loss.link != "softmax" or not isinstance(head.classifier, keras.layers.Dense):
        raise ValueError(
            "the detector must have a linear classifier with softmax and a background class, as torchvision's "
            f"checkpoints have; given: roi_loss={detector.region_loss.given!r} and "
            f"classifier={head.classifier_option!r}. skip_classifier=True leaves the layers of the classes out."
        )
    if head.delta_sets != detector.num_classes:
        raise ValueError(
            "the detector must have deltas of each class, as torchvision's checkpoints have; given: "
            "class_agnostic_boxes. skip_classifier=True leaves the layers of the classes out."
        )


def _classifier_tensors(head):
    last_first = (lambda w: np.roll(w.T, 1, axis=0), lambda w: np.roll(w, -1, axis=0).T)
    roll = (lambda b: np.roll(b, 1), lambda b: np.roll(b, -1))
    yield from _layer(head.classifier, "roi_heads.box_predictor.cls_score", last_first, roll)
    without = (lambda w: _prepend(w.T, 4), lambda w: w[4:].T)
    yield from _layer(head.regressor, "roi_heads.box_predictor.bbox_pred", without, _dropping(4))


# To PyTorch's layout, and back; the background's mask, which is first there, is dropped.
_CONV = (lambda w: w.transpose(3, 2, 0, 1), lambda w: w.transpose(2, 3, 1, 0))
_MAPS = (lambda w: _prepend(w.transpose(3, 2, 0, 1), 1), lambda w: w[1:].transpose(2, 3, 1, 0))


def _prepend(array, rows):
    return np.concatenate([np.zeros((rows, *array.shape[1:]), array.dtype), array])


def _dropping(rows):
    return (lambda b: _prepend(b, rows), lambda b: b[rows:])


def _layer(layer, prefix, kernel, bias=None):
    yield TorchTensor(f"{prefix}.weight", layer.kernel, *kernel)
    yield TorchTensor(f"{prefix}.bias", layer.bias, *(bias or ()))


def load_torchvision(detector, source, strict=True, skip_classifier=False):
    """Load a checkpoint of torchvision's Faster or Mask R-CNN into a detector.

    Args:
        detector: A `FasterRCNN` or `MaskRCNN` with the same backbone and number of classes. torchvision counts the
            background as one more class.
        source: The path of a `.pth`, `.pt` or `.safetensors` file, or a mapping from key to array. The names that
            torchvision used before 0.13 are accepted too.
        strict: Whether to raise an error if a tensor is missing, unexpected or of another shape. Otherwise the
            tensors that fit are loaded.
        skip_classifier: Whether to leave class logits, box deltas and mask maps as they are, for other classes or
            another loss.

    Returns:
        A dict with the lists `missing`, `unexpected` and `misshapen`.

    Raises:
        ValueError: With `strict`, if tensors do not fit; the message names each one, and nothing is loaded. Also if a
            tensor holds NaN, infinite numbers or negative variances, if the file cannot be read, or if torchvision's
            layout does not have the detector's options.

    >>> from zoo.detection import FasterRCNN
    >>> from zoo.detection.checkpoint import load_torchvision, to_torchvision
    >>> detector = FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16)
    >>> load_torchvision(detector, to_torchvision(detector))["missing"]
    []
    """
    arrays = new_names(read_state_dict(source))
    tensors = list(torchvision_tensors(detector, skip_classifier))
    if skip_classifier:
        arrays = {key: value for key, value in arrays.items() if not key.startswith(CLASSIFIER)}
    report, fitting = compare(tensors, arrays)
    if strict:
        check_same(detector, report, _hints(report))
    assign(fitting)
    return report


def _hints(report):
    if not report["missing"] and not report["unexpected"]:
        if all(item.startswith(CLASSIFIER) for item in report["misshapen"]):
            yield (
                "Only the layers of the classes differ: load_torch_checkpoint with skip_classifier=True loads the rest."
            )
    if report["unexpected"] and all(".mask_" in key for key in report["unexpected"]):
        yield "It has a mask head, as zoo.MaskRCNN has; strict=False loads the rest."


def to_torchvision(detector, skip_classifier=False):
    """The detector's weights as torchvision's state dict, a dict of NumPy arrays.

    Args:
        detector: A `FasterRCNN` or `MaskRCNN`.
        skip_classifier: Whether to leave out class logits, box deltas and mask maps. Use it for a detector with
            another loss than softmax.

    Raises:
        ValueError: If torchvision's layout cannot hold the detector.

    >>> from zoo.detection import FasterRCNN
    >>> from zoo.detection.checkpoint import to_torchvision
    >>> detector = FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16)
    >>> to_torchvision(detector)["roi_heads.box_predictor.cls_score.weight"].shape  # the background is one more
    (3, 16)
    """
    return {
        tensor.key: np.ascontiguousarray(tensor.to_torch(keras.ops.convert_to_numpy(tensor.variable)))
        for tensor in torchvision_tensors(detector, skip_classifier)
    }


def new_names(arrays):
    """The keys of torchvision from 0.13 on, for a state dict with those or the older ones.

    >>> from zoo.detection.checkpoint import new_names
    >>> list(new_names({"rpn.head.conv.bias": 0, "roi_heads.mask_head.mask_fcn2.bias": 0}))
    ['rpn.head.conv.0.0.bias', 'roi_heads.mask_head.1.0.bias']
    """
    renamed = {}
    for key, value in arrays.items():
        for pattern, replacement in _OLD_NAMES:
            key = re.sub(pattern, replacement, key)
        match = re.fullmatch(r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", key)
        renamed[f"roi_heads.mask_head.{int(match[1]) - 1}.0.{match[2]}" if match else key] = value
    return renamed


def build_from_torchvision(cls, source, batch_norm_epsilon, frozen_stages, arguments):
    """The detector of class `cls` that a state dict belongs to, with its weights; see `FasterRCNN.from_torch`."""
    decided = {"backbone", "num_classes", "pyramid_filters", "box_units", "mask_filters"} & set(arguments)
    if decided:
        raise ValueError(
            f"{min(decided)} must be left out, since the checkpoint decides it; given: {arguments[min(decided)]!r}. "
            "load_torch_checkpoint loads into other detectors."
        )
    number = isinstance(batch_norm_epsilon, (int, float)) and not isinstance(batch_norm_epsilon, bool)
    if not number or not 0 <= batch_norm_epsilon < 1:
        raise ValueError(f"batch_norm_epsilon must be at least 0 and below 1; given: {batch_norm_epsilon!r}.")
    arrays = new_names(read_state_dict(source))
    shapes = {key: value.shape for key, value in arrays.items()}
    needed = [
        "roi_heads.box_predictor.cls_score.weight",
        "roi_heads.box_head.fc6.weight",
        f"{BODY}conv1.weight",
        "backbone.fpn.inner_blocks.0.0.weight",
    ]
    if "roi_heads.mask_predictor.mask_fcn_logits.weight" in shapes:
        needed.append("roi_heads.mask_head.0.0.weight")
    for key in needed:
        if key not in shapes:
            some = ", ".join(list(shapes)[:3]) or "no tensors"
            raise ValueError(
                f"The checkpoint is not torchvision's Faster or Mask R-CNN: it has no {key}; found: {some}."
            )
        if len(shapes[key]) < 2:
            raise ValueError(f"The checkpoint is damaged: {key} has the shape {shapes[key]}.")
    has_masks = "roi_heads.mask_predictor.mask_fcn_logits.weight" in shapes
    if has_masks != cls.has_masks:
        right = "MaskRCNN" if has_masks else "FasterRCNN"
        raise ValueError(f"The checkpoint has {'a' if has_masks else 'no'} mask head: use zoo.{right}.from_torch.")
    body = {key.removeprefix(BODY): value for key, value in arrays.items() if key.startswith(BODY)}
    name, options = detect_architecture(body)
    options = {key: options[key] for key in _BODY_OPTIONS if key in options}
    backbone = create_model(name, pyramid=True, frozen_batch_norm=True, input_shape=(None, None, 3), **options)
    set_batch_norm_epsilon(backbone, batch_norm_epsilon)
    units, channels = shapes["roi_heads.box_head.fc6.weight"][0], shapes["backbone.fpn.inner_blocks.0.0.weight"][0]
    if has_masks:
        arguments = {**arguments, "mask_filters": shapes["roi_heads.mask_head.0.0.weight"][0]}
    detector = cls(
        backbone,
        shapes["roi_heads.box_predictor.cls_score.weight"][0] - 1,
        frozen_stages=frozen_stages,
        pyramid_filters=channels,
        box_units=units,
        **arguments,
    )
    load_torchvision(detector, arrays)
    return detector
