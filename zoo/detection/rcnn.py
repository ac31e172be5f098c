"""Faster R-CNN on a feature pyramid, as a Keras model that `fit` trains on every backend."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_apa._keras_internals import parts_of
from keras_apa._text import as_text
from keras_apa.layers.composite import differing_parts, set_trainable_parts
from keras_apa.losses import attach_loss_state
from zoo.detection import matching
from zoo.detection.anchors import pyramid_anchors
from zoo.detection.backbone import as_backbone, freeze, run_stages, stages_of
from zoo.detection.checkpoint import build_from_torchvision
from zoo.detection.export import export_detector
from zoo.detection.fpn import FeaturePyramid
from zoo.detection.heads import BoxHead, ProposalHead
from zoo.detection.inputs import check_image_shape
from zoo.detection.options import make_options
from zoo.detection.proposals import proposal_losses, select_proposals
from zoo.detection.roi_heads import box_detections, box_losses, region_features, sample_regions
from zoo.detection.roi_losses import RegionLoss
from zoo.detection.targets import read_targets
from zoo.detection.trainer import DetectorTrainer
from zoo.detection.transform import DetectionPreprocessing
from zoo.value_range import PIXELS, sees_images, values_known

# Validation draws the same anchors and regions each time, so that its losses can be compared.
_VALIDATION_SEED = 1337


@keras.saving.register_keras_serializable(package="keras_apa")
@sees_images
class FasterRCNN(DetectorTrainer):
    """Faster R-CNN with a feature pyramid: proposals, then a class and a box for each.

    Training minimizes the sum of four losses, and each is logged by its name. `objectness_loss` and
    `proposal_box_loss` belong to the proposal head, `classifier_loss` and `box_loss` to the box head.

    Args:
        backbone: A model of the zoo with `pyramid=True` and `input_shape=(None, None, 3)`, or a name. A name creates
            such a model, with `frozen_batch_norm=True`. The detector owns the layers of the backbone from then on.
        num_classes: The number of classes, without background.
        roi_loss: The loss of the regions' classes: `"softmax"`, `"sigmoid"`, `"gumbel"`, or a loss of
            `keras_apa.losses` (`GumbelOptimizedLoss(..., background=True)`,
            `BalancedSigmoidCrossentropy(..., background=True)`, ...). It also decides how scores are computed: by
            softmax, sigmoid or Gumbel. Its state is attached to the detector.
        classifier: The last layer of the box head: `"linear"`, `"normalized"`, `"cosine"`, or a layer.
        frozen_stages: The stem and this many stages are not trained. 0 freezes only the stem, `None` nothing.
        preprocessing: A `zoo.detection.DetectionPreprocessing`. `None` takes ImageNet's mean and standard deviation.
        class_names: One name per class, or `None`.
        pyramid_filters, box_units: The channels of the pyramid, and the width of the dense layers.
        seed: The seed of the draws of anchors and regions. `None` takes a different one each time.
        conventions: The set of options to start from: `"torchvision"`.
        name, dtype: The name of the model, and the dtype policy of the heads. The backbone has its own policy.
        trainable, trainable_parts: For a config: whether the detector is trained, and the parts that differ from
            this.
        **options: Fields of `zoo.detection.Options` to change, such as `max_detections=300`.

    Call arguments:
        inputs: RGB images `(batch, height, width, 3)` with pixels from 0 to 255, or a dict
            `{"images": ..., "image_size": ...}`. `image_size` `(batch, 2)` holds heights and widths in pixels; the
            rest of each image is padding. The height and width of `images` must be static. Arrays of another range
            give a warning, see `zoo.value_range.warn_of_range`.
        training: `True` returns the tensors that the losses need. Otherwise the model returns the detections.

    Targets: a dict with these entries:

    * `"boxes"` `(batch, N, 4)`: xyxy, in pixels of the given images.
    * `"labels"` `(batch, N)`: labels `0..num_classes - 1`, -1 for padding.
    * `"ignored"` `(batch, N)`, optional: bool, regions in which nothing is a negative. Such an entry needs no label.
    * `"image_size"` `(batch, 2)`, optional: heights and widths in pixels. It is used if the inputs have no
      `"image_size"`.

    An object with another label or without area is treated as padding and has no loss. `fit` first checks arrays for
    such objects. Check the batches of a generator or of tf.data with `zoo.detection.check_targets`.

    Returns:
        A dict with `"boxes"` `(batch, D, 4)`, `"scores"` `(batch, D)` and `"labels"` `(batch, D)` int32, best first.
        Padding has label -1 and score 0. `D` is `max_detections`.

    Raises:
        ValueError: If the backbone has no pyramid, an option is unknown, a value is out of range, the images are too
            small or of unknown size, or the targets lack a key.

    Source: Faster R-CNN (NeurIPS 2015); Feature Pyramid Networks for Object Detection (CVPR 2017). The defaults are
    those of torchvision's `fasterrcnn_resnet50_fpn`.

    >>> import numpy as np, zoo.detection
    >>> detector = zoo.detection.FasterRCNN("resnet18", num_classes=3, pyramid_filters=16, box_units=32)
    >>> detections = detector.predict(np.zeros((1, 64, 64, 3), "uint8"), verbose=0)
    >>> detections["boxes"].shape
    (1, 100, 4)
    """

    has_masks = False

    def __init__(
        self,
        backbone,
        num_classes,
        roi_loss="softmax",
        classifier="linear",
        frozen_stages=None,
        preprocessing=None,
        class_names=None,
        pyramid_filters=256,
        box_units=1024,
        seed=None,
        conventions="torchvision",
        name=None,
        dtype=None,
        trainable=True,
        trainable_parts=None,
        **options,
    ):
        # Pixels stay what they are: half precision would round them before they are normalised.
        super().__init__(name=name, dtype=dtype, trainable=trainable, autocast=False)
        self.options = make_options(conventions, options)
        self.num_classes = positive(num_classes, "num_classes")
        self.backbone = as_backbone(backbone)
        self.frozen_stages = freeze(self.backbone, frozen_stages)
        self.preprocessing = DetectionPreprocessing() if preprocessing is None else preprocessing
        self.class_names = None if class_names is None else tuple(as_text(name) for name in class_names)
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"class_names must have {num_classes} names, one a class; given: {len(self.class_names)}.")
        self.pyramid_filters = positive(pyramid_filters, "pyramid_filters")
        self.box_units = positive(box_units, "box_units")
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.region_loss = RegionLoss(roi_loss, self.num_classes)
        self.strides, channels = stages_of(self.backbone)
        if len(self.options.anchor_sizes) != len(self.strides) + 1:
            raise ValueError(
                f"anchor_sizes must have {len(self.strides) + 1} entries, one a level of the pyramid of "
                f"{self.backbone.name} and one for the pooled level; given: {self.options.anchor_sizes!r}."
            )
        per_level = {len(sizes) for sizes in self.options.anchor_sizes}
        if len(per_level) != 1:
            raise ValueError(
                f"anchor_sizes must have the same number on every level; given: {self.options.anchor_sizes!r}."
            )
        per_cell = per_level.pop() * len(self.options.anchor_ratios)
        self.fpn = FeaturePyramid(pyramid_filters, dtype=self.dtype_policy, name="fpn")
        self.fpn.build([(None, None, None, c) for c in channels])
        self.proposal_head = ProposalHead(per_cell, pyramid_filters, dtype=self.dtype_policy, name="proposal_head")
        self.proposal_head.build([(None, None, None, pyramid_filters)])
        self.box_head = BoxHead(
            self.region_loss.logits,
            1 if self.options.class_agnostic_boxes else self.num_classes,
            box_units,
            classifier,
            self.region_loss.classifier_initializer,
            self.region_loss.classifier_bias,
            dtype=self.dtype_policy,
            name="box_head",
        )
        self.box_head.build((None, 7, 7, pyramid_filters))
        self._make_more_heads()
        if not trainable:
            for part in parts_of(self):
                if part is not self.backbone:  # whose config says which of its layers are
                    part.trainable = False
        set_trainable_parts(self, trainable_parts or {})
        self.loss_trackers = [keras.metrics.Mean(name=name) for name in self._loss_names()]
        self._wants_losses = False
        self.built = True
        # As an attribute of its own, so that files hold the state of the loss.
        self.roi_loss = self.region_loss.loss
        if self.roi_loss is not None:
            attach_loss_state(self, self.roi_loss)

    def _make_more_heads(self):
        """Heads of a subclass."""

    @classmethod
    def from_torch(cls, source, batch_norm_epsilon=1e-5, frozen_stages=1, **arguments):
        """Create the detector that belongs to a checkpoint of torchvision's layout, and load its weights.

        Args:
            source: The path of a `.pth`, `.pt` or `.safetensors` file, or a mapping from key to array.
            batch_norm_epsilon: The epsilon of the backbone's norms, which a state dict does not contain.
                torchvision's own `fasterrcnn_resnet50_fpn` and `maskrcnn_resnet50_fpn` with the weights `COCO_V1`
                were trained, and run, with 0 (`overwrite_eps(model, 0.0)` in their builders). Detectors that others
                train have 1e-5.
            frozen_stages: As in the constructor.
            **arguments: Other arguments of the constructor. The backbone and the sizes are not allowed, because the
                checkpoint decides them.

        Raises:
            ValueError: If the tensors do not belong to such a detector, or if the checkpoint decides an argument.

        Source: torchvision 0.28.

        >>> import zoo.detection
        >>> from zoo.detection.checkpoint import to_torchvision
        >>> made = zoo.detection.FasterRCNN("resnet18", num_classes=2, pyramid_filters=8, box_units=16)
        >>> loaded = zoo.detection.FasterRCNN.from_torch(to_torchvision(made))
        >>> loaded.num_classes
        2
        """
        return build_from_torchvision(cls, source, batch_norm_epsilon, frozen_stages, arguments)

    # ------------------------------------------------------------------------------------------------
    # Stages, each for itself

    def read_images(self, inputs):
        """`(network inputs, image size or None, (height, width) of the batch)` from the inputs of the model."""
        images, size = (inputs["images"], inputs.get("image_size")) if isinstance(inputs, dict) else (inputs, None)
        check_image_shape(images, self.strides[-1])
        return self.preprocessing.normalize(images, size), size, tuple(images.shape[1:3])

    def feature_maps(self, images, training=False):
        """The maps of the pyramid, finest first, of normalised images."""
        if self.backbone.input_shape[-1] != 3:
            images = ops.transpose(images, (0, 3, 1, 2))
        stages = run_stages(self.backbone, images, training)
        maps = [stages[name] for name in sorted(stages)]
        if self.backbone.input_shape[-1] != 3:
            maps = [ops.transpose(x, (0, 2, 3, 1)) for x in maps]
        return self.fpn(maps)

    def anchors(self, size, maps):
        """The anchors of every level, for the maps of a batch of `size` `(height, width)`."""
        options = self.options
        grids = [tuple(x.shape[1:3]) for x in maps]
        return pyramid_anchors(size, grids, options.anchor_sizes, options.anchor_ratios, options.anchor_rounding)

    def propose(self, logits, deltas, anchors, image_size, training):
        """`(boxes, scores)` of the proposals, see `select_proposals`."""
        options = self.options
        return select_proposals(
            logits,
            deltas,
            anchors,
            image_size,
            options.rpn_candidates_training if training else options.rpn_candidates,
            options.proposals_training if training else options.proposals,
            options.rpn_nms_threshold,
            options.rpn_min_size,
            options.min_log_scale,
        )

    def region_features(self, maps, boxes, size):
        """ROIAlign of boxes `(batch, N, 4)` on the levels of the pyramid, `(batch * N, size, size, channels)`."""
        return region_features(maps, boxes, size, self.strides, self.options)

    def sample_regions(self, boxes, valid, targets, order):
        """Regions for the box head, see `zoo.detection.roi_heads.sample_regions`."""
        return sample_regions(boxes, valid, targets, order, self.num_classes, self.options)

    # ------------------------------------------------------------------------------------------------
    # Inference

    def call(self, inputs, training=False):
        images, image_size, size = self.read_images(inputs)
        maps = self.feature_maps(images, training=training)
        logits, deltas = self.proposal_head(maps)
        if training or self._wants_losses:
            return {"maps": maps, "logits": logits, "deltas": deltas}
        if image_size is None:
            image_size = ops.broadcast_to(ops.convert_to_tensor([size], "float32"), (ops.shape(images)[0], 2))
        return self.detect(maps, logits, deltas, image_size, size)

    def detect(self, maps, logits, deltas, image_size, size):
        """The detections from the maps of the pyramid and the outputs of the proposal head."""
        image_size = ops.cast(ops.convert_to_tensor(image_size), "float32")
        boxes, scores = self.propose(logits, deltas, self.anchors(size, maps), image_size, training=False)
        logits, deltas = self.box_head(self.region_features(maps, boxes, 7))
        return box_detections(logits, deltas, boxes, scores, image_size, self.region_loss, self.options)

    def predict_images(self, images, resize=True):
        """Detections in images of any size, in the pixels of the given images.

        Args:
            images: A list of uint8 arrays `(height, width, 3)`, RGB.
            resize: `True` resizes as `preprocessing` says, `(min_size, max_size)` resizes to other bounds, and
                `False` keeps the pixels as they are.

        Returns:
            A list of dicts of NumPy arrays: `"boxes"` `(n, 4)` xyxy, `"scores"` `(n,)` and `"labels"` `(n,)`. Mask
            R-CNN adds `"masks"` `(n, height, width)` bool.

        Raises:
            ValueError: If `images` is not such a list, or if `resize` is not one of these values.

        >>> import numpy as np, zoo.detection
        >>> detector = zoo.detection.FasterRCNN("resnet18", num_classes=3, pyramid_filters=16, box_units=32)
        >>> found = detector.predict_images([np.zeros((40, 50, 3), "uint8")], resize=(64, 64))
        >>> sorted(found[0])
        ['boxes', 'labels', 'scores']
        """
        if isinstance(images, np.ndarray) and images.ndim == 3:
            raise ValueError("images must be a list of arrays (height, width, 3); given: one array. Write [image].")
        transform = self.preprocessing
        pair = isinstance(resize, (tuple, list)) and len(resize) == 2
        if not pair and not isinstance(resize, bool):
            raise ValueError(f"resize must be True, False or (min_size, max_size); given: {resize!r}.")
        if pair:
            transform = dataclasses.replace(transform, min_size=resize[0], max_size=resize[1])
        results = []
        for index, image in enumerate(images):
            image = np.asarray(image)
            if image.ndim != 3 or image.shape[-1] != 3 or image.dtype != np.uint8 or 0 in image.shape:
                raise ValueError(
                    f"images must be uint8 arrays (height, width, 3); given: shape {image.shape} and "
                    f"dtype {image.dtype} for image {index}."
                )
            pixels, sizes = transform.batch([image], resize=resize is not False)
            # Small images are padded up to what the network needs.
            missing = [max(self.strides[-1] - side, 0) for side in pixels.shape[1:3]]
            pixels = np.pad(pixels, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)))
            with values_known(self):
                found = self.predict_on_batch({"images": pixels, "image_size": sizes})
            found = {key: np.asarray(value)[0] for key, value in found.items()}
            results.append(self.to_image(found, sizes[0], image.shape[:2]))
        return results

    def to_image(self, found, resized, size):
        """The detections of one image, without padding, in the pixels of the original image."""
        kept = found["labels"] >= 0
        y, x = (np.float32(side) / np.float32(scaled) for side, scaled in zip(size, resized, strict=True))
        result = {key: found[key][kept] for key in ("boxes", "scores", "labels")}
        result["boxes"] = result["boxes"] * np.array([x, y, x, y], "float32")
        return result

    # ------------------------------------------------------------------------------------------------
    # Training

    def _loss_names(self):
        return ("objectness_loss", "proposal_box_loss", "classifier_loss", "box_loss")

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The sum of the losses of a batch; each is logged by its name."""
        if sample_weight is not None:
            raise ValueError(
                f"sample_weight must be None for detectors; given: {type(sample_weight).__name__}. "
                "Mark objects as ignored instead."
            )
        losses = self.detection_losses(x, y, y_pred, training)
        for tracker in self.loss_trackers:
            tracker.update_state(losses[tracker.name])
        total = sum(losses.values())
        for loss in self.losses:
            total = total + ops.sum(ops.cast(loss, "float32"))
        return total

    def detection_losses(self, x, y, outputs, training=True, order=None):
        """Every loss of a batch by name.

        Args:
            x, y: Inputs and targets as `fit` takes them.
            outputs: The result of calling the model with `training=True`.
            training: `False` draws the same anchors and regions at every call.
            order: The order in which anchors and regions are drawn, see `zoo.detection.matching.balanced_sample`.
                `None` draws at random.
        """
        maps, logits, deltas = outputs["maps"], outputs["logits"], outputs["deltas"]
        images, image_size = (x["images"], x.get("image_size")) if isinstance(x, dict) else (x, None)
        size = tuple(images.shape[1:3])
        targets = read_targets(y, self.num_classes, size, image_size)
        anchors = self.anchors(size, maps)
        if order is None:
            order = matching.random_order(self.seed_generator if training else _VALIDATION_SEED)
        objectness, proposal_box = proposal_losses(logits, deltas, anchors, targets, order, self.options)
        boxes, scores = self.propose(logits, deltas, anchors, targets.image_size, training=True)
        regions = self.sample_regions(boxes, scores > float("-inf"), targets, order)
        logits, deltas = self.box_head(self.region_features(maps, regions["boxes"], 7))
        losses = {
            "objectness_loss": objectness,
            "proposal_box_loss": proposal_box,
            **box_losses(logits, deltas, regions, self.region_loss, self.options),
        }
        return {**losses, **self._more_losses(maps, regions, targets)}

    def _more_losses(self, maps, regions, targets):
        """Losses of the heads of a subclass."""
        return {}

    def wanted_range(self):
        """The smallest and the largest value of an image."""
        return PIXELS

    def export(self, filepath, format="tf_saved_model", **options):
        """Write the detector for a server: `zoo.export(detector, filepath, format, **options)`.

        A test runs the longer example of docs/detection.md.

        Returns:
            The path of the version's folder.

        >>> detector.export("models/birds", image_size=(64, 96)).name  # doctest: +SKIP
        '1'
        """
        return export_detector(self, filepath, format, **options)

    # ------------------------------------------------------------------------------------------------
    # Configuration

    def get_config(self):
        loss = self.region_loss.given
        parts = differing_parts(self, skip=[self.backbone])
        classifier = self.box_head.classifier_option
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "backbone": serialize(self.backbone),
            "num_classes": self.num_classes,
            "roi_loss": loss if isinstance(loss, str) else serialize(loss),
            "classifier": classifier if isinstance(classifier, str) else serialize(classifier),
            "frozen_stages": self.frozen_stages,
            "preprocessing": serialize(self.preprocessing),
            "class_names": None if self.class_names is None else list(self.class_names),
            "pyramid_filters": self.pyramid_filters,
            "box_units": self.box_units,
            "seed": self.seed,
            **({} if self.trainable else {"trainable": False}),
            **({"trainable_parts": parts} if parts else {}),
            **{key: _plain(value) for key, value in dataclasses.asdict(self.options).items()},
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("backbone", "roi_loss", "classifier", "preprocessing"):
            if isinstance(config[key], dict):
                config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
        backbone = config["backbone"]
        states = [(layer, layer.trainable) for layer in getattr(backbone, "layers", ())]
        detector = cls(**config)
        for layer, state in states:
            if layer.trainable != state:  # one of `frozen_stages` that was thawed since
                layer.trainable = state
        return detector


def _plain(value):
    return [_plain(x) for x in value] if isinstance(value, tuple) else value


def positive(value, argument):
    """The value as an int; an error that names the argument if it is no positive integer."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{argument} must be a positive integer; given: {value!r}.")
    return int(value)
