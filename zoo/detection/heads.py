"""The heads of a detector: proposals on every level, boxes and classes of a region, masks of a region."""

import keras
from keras import initializers, layers, ops

from keras_apa._checks import check_name
from keras_apa.layers import CosineDense, NormalizedDense
from keras_apa.layers.composite import Composite
from zoo.blocks import clone
from zoo.detection.convolution import convolve, pointwise, relu
from zoo.resnet import KAIMING_NORMAL_FAN_OUT, UNIFORM_FAN_IN

CLASSIFIERS = ("linear", "normalized", "cosine")
_NORMAL_001 = {"class_name": "RandomNormal", "config": {"mean": 0.0, "stddev": 0.01}}


def _conv(filters, size, initializer, name, dtype):
    """The weights of a convolution; the heads compute it themselves, by `convolve` and `pointwise`."""
    return layers.Conv2D(
        filters,
        size,
        padding="same",
        kernel_initializer=initializers.get(initializer),
        data_format="channels_last",
        dtype=dtype,
        name=name,
    )


@keras.saving.register_keras_serializable(package="keras_apa")
class ProposalHead(Composite):
    """Region proposal head: a 3x3 convolution with ReLU, then an objectness logit and four deltas an anchor.

    The same weights on every level.

    Args:
        anchors_per_cell: Anchors at one position.
        filters: Channels of the 3x3 convolution.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Input shape: A list of `(batch, height, width, channels)`.
    Output shape: Two lists with an entry a level: logits `(batch, height * width * anchors_per_cell)` and deltas of one
        more axis with 4; both float32.
    Source: Faster R-CNN (NeurIPS 2015), Sec. 3.1; start values of Detectron: N(0, 0.01), biases 0.

    >>> from zoo.detection.heads import ProposalHead
    >>> logits, deltas = ProposalHead(3, 8)([keras.ops.ones((1, 4, 5, 8))])
    >>> logits[0].shape == (1, 60), deltas[0].shape == (1, 60, 4)
    (True, True)
    """

    def __init__(self, anchors_per_cell=3, filters=256, **kwargs):
        super().__init__(**kwargs)
        self.anchors_per_cell = anchors_per_cell
        self.filters = filters
        self.conv = _conv(filters, 3, _NORMAL_001, "conv", self.dtype_policy)
        self.objectness = _conv(anchors_per_cell, 1, _NORMAL_001, "objectness", self.dtype_policy)
        self.deltas = _conv(4 * anchors_per_cell, 1, _NORMAL_001, "deltas", self.dtype_policy)
        self.adopt()

    def build(self, input_shape):
        shape = tuple(input_shape[0])
        self.conv.build(shape)
        self.objectness.build((*shape[:-1], self.filters))
        self.deltas.build((*shape[:-1], self.filters))
        super().build(input_shape)

    def call(self, inputs):
        logits, deltas = [], []
        # One product, whose gradient is one map.
        kernel = ops.concatenate([self.objectness.kernel, self.deltas.kernel], axis=-1)
        bias = ops.concatenate([self.objectness.bias, self.deltas.bias], axis=-1)
        for x in inputs:
            x = relu(convolve(x, self.conv.kernel) + self.conv.bias)
            number = x.shape[1] * x.shape[2] * self.anchors_per_cell
            both = pointwise(x, kernel) + bias
            objectness, moves = both[..., : self.anchors_per_cell], both[..., self.anchors_per_cell :]
            logits.append(ops.cast(ops.reshape(objectness, (-1, number)), "float32"))
            deltas.append(ops.cast(ops.reshape(moves, (-1, number, 4)), "float32"))
        return logits, deltas

    def get_config(self):
        return {**super().get_config(), "anchors_per_cell": self.anchors_per_cell, "filters": self.filters}


@keras.saving.register_keras_serializable(package="keras_apa")
class BoxHead(Composite):
    """Box head: two dense layers with ReLU, then class logits and the deltas of each class.

    Args:
        logits: Number of class logits: the classes, and one for the background where the loss needs it, the last.
        delta_sets: Sets of four deltas: the number of classes, or 1 for deltas that all classes share.
        units: Width of the two dense layers.
        classifier: `"linear"`, `"normalized"` (`keras_apa.layers.NormalizedDense`, temperature 20, with bias),
            `"cosine"`, or a layer with `logits` outputs, which is cloned.
        classifier_initializer, classifier_bias: Of the linear classifier's kernel; number its bias starts with.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Input shape: `(N, height, width, channels)`, the features of regions.
    Output shape: logits `(N, logits)` and deltas `(N, delta_sets, 4)`, both float32.
    Raises: ValueError: For an unknown `classifier`.
    Source: Feature Pyramid Networks (CVPR 2017), Sec. 4.2.

    >>> from zoo.detection.heads import BoxHead
    >>> logits, deltas = BoxHead(4, 3, units=16)(keras.ops.ones((5, 7, 7, 8)))
    >>> logits.shape == (5, 4), deltas.shape == (5, 3, 4)
    (True, True)
    """

    def __init__(
        self,
        logits,
        delta_sets,
        units=1024,
        classifier="linear",
        classifier_initializer=UNIFORM_FAN_IN,
        classifier_bias=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.logits = logits
        self.delta_sets = delta_sets
        self.units = units
        self.classifier_option = classifier
        self.classifier_initializer = initializers.get(classifier_initializer)
        self.classifier_bias = float(classifier_bias)
        uniform = {"kernel_initializer": initializers.get(UNIFORM_FAN_IN)}
        self.dense1 = layers.Dense(units, activation="relu", name="dense1", dtype=self.dtype_policy, **uniform)
        self.dense2 = layers.Dense(units, activation="relu", name="dense2", dtype=self.dtype_policy, **uniform)
        # As in the zoo's classifiers, logits are float32 also in mixed precision.
        self.classifier = self._make_classifier(classifier)
        self.regressor = layers.Dense(4 * delta_sets, name="regressor", dtype="float32", **uniform)
        self.adopt()

    def _make_classifier(self, classifier):
        if isinstance(classifier, layers.Layer):
            return clone(classifier, "classifier")
        check_name(classifier, CLASSIFIERS, "classifier")
        if classifier == "normalized":
            return NormalizedDense(self.logits, temperature=20.0, name="classifier", dtype="float32")
        if classifier == "cosine":
            return CosineDense(self.logits, name="classifier", dtype="float32")
        return layers.Dense(
            self.logits,
            kernel_initializer=self.classifier_initializer,
            bias_initializer=initializers.Constant(self.classifier_bias),
            name="classifier",
            dtype="float32",
        )

    def build(self, input_shape):
        features = input_shape[1] * input_shape[2] * input_shape[3]
        self.dense1.build((None, features))
        for layer in (self.dense2, self.classifier, self.regressor):
            layer.build((None, self.units))
        super().build(input_shape)

    def call(self, inputs):
        features = inputs.shape[1] * inputs.shape[2] * inputs.shape[3]
        x = self.dense2(self.dense1(ops.reshape(inputs, (-1, features))))
        logits, deltas = self.classifier(x), self.regressor(x)
        return ops.cast(logits, "float32"), ops.reshape(ops.cast(deltas, "float32"), (-1, self.delta_sets, 4))

    def get_config(self):
        option = self.classifier_option
        layer = isinstance(option, layers.Layer)
        return {
            **super().get_config(),
            "logits": self.logits,
            "delta_sets": self.delta_sets,
            "units": self.units,
            "classifier": keras.saving.serialize_keras_object(option) if layer else option,
            "classifier_initializer": initializers.serialize(self.classifier_initializer),
            "classifier_bias": self.classifier_bias,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        if isinstance(config["classifier"], dict):
            config["classifier"] = keras.saving.deserialize_keras_object(config["classifier"])
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_apa")
class MaskHead(Composite):
    """Mask head: 3x3 convolutions with ReLU, a transposed convolution that doubles the size, and a map a class.

    Args:
        classes: Number of classes.
        filters: Channels of every convolution.
        depth: Number of 3x3 convolutions.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(N, height, width, channels)`, the features of regions.
        labels: `(N,)` integers: only the map of this class is computed, which is all that loss and prediction need (the
            maps of 1203 classes would be 500 MB for 128 regions). `None` for all maps.

    Output shape: `(N, 2 * height, 2 * width)`, or with one more axis of `classes`; logits, float32.
    Source: Mask R-CNN (ICCV 2017), Fig. 4; start values Kaiming-normal of fan_out, biases 0.

    >>> from zoo.detection.heads import MaskHead
    >>> MaskHead(3, 8)(keras.ops.ones((2, 14, 14, 8)), keras.ops.zeros((2,), "int32")).shape == (2, 28, 28)
    True
    """

    def __init__(self, classes, filters=256, depth=4, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.filters = filters
        self.depth = depth
        self.convs = [
            _conv(filters, 3, KAIMING_NORMAL_FAN_OUT, f"conv{i}", self.dtype_policy) for i in range(1, depth + 1)
        ]
        self.upsample = layers.Conv2DTranspose(
            filters,
            2,
            strides=2,
            kernel_initializer=initializers.get(KAIMING_NORMAL_FAN_OUT),
            data_format="channels_last",
            dtype=self.dtype_policy,
            name="upsample",
        )
        self.predictor = ClassMaps(classes, dtype=self.dtype_policy, name="predictor")
        self.adopt()

    def build(self, input_shape):
        shape = tuple(input_shape)
        for conv in self.convs:
            conv.build(shape)
            shape = (*shape[:-1], self.filters)
        self.upsample.build(shape)
        self.predictor.build(shape)
        super().build(input_shape)

    def call(self, inputs, labels=None):
        x = inputs
        for conv in self.convs:
            x = relu(convolve(x, conv.kernel) + conv.bias)
        # Steps as large as the kernel: each position becomes 2 x 2 of its own, one product of matrices (XLA takes
        # 10 s for the gradient of the transposed convolution). They are put in their places when they are logits.
        height, width = x.shape[1:3]
        kernel = ops.reshape(ops.transpose(self.upsample.kernel, (3, 0, 1, 2)), (self.filters, -1))
        x = ops.reshape(ops.matmul(x, ops.cast(kernel, x.dtype)), (-1, height, 4 * width, self.filters))
        x = relu(x + ops.cast(self.upsample.bias, x.dtype))
        maps = self.predictor(x, labels)
        classes = tuple(maps.shape[3:])
        maps = ops.reshape(maps, (-1, height, width, 2, 2, *classes))
        maps = ops.transpose(maps, (0, 1, 3, 2, 4, *((5,) if classes else ())))
        return ops.reshape(maps, (-1, 2 * height, 2 * width, *classes))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "filters": self.filters, "depth": self.depth}


@keras.saving.register_keras_serializable(package="keras_apa")
class ClassMaps(layers.Layer):
    """A 1x1 convolution to one map a class, of which only the map of a given class need be computed.

    Args:
        classes: Number of classes.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Call arguments:
        inputs: `(N, height, width, channels)`.
        labels: `(N,)` integers, or `None` for all maps.

    Output shape: `(N, height, width)`, or `(N, height, width, classes)`; float32.

    >>> from zoo.detection.heads import ClassMaps
    >>> layer = ClassMaps(5)
    >>> layer(keras.ops.ones((2, 3, 3, 4))).shape == (2, 3, 3, 5)
    True
    """

    def __init__(self, classes, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(1, 1, input_shape[-1], self.classes),
            initializer=initializers.get(KAIMING_NORMAL_FAN_OUT),
        )
        self.bias = self.add_weight(name="bias", shape=(self.classes,), initializer="zeros")
        super().build(input_shape)

    def call(self, inputs, labels=None):
        kernel = ops.reshape(self.kernel, (-1, self.classes))
        if labels is None:
            maps = ops.matmul(inputs, kernel) + self.bias
        else:
            columns = ops.take(ops.transpose(kernel), labels, axis=0)
            n, (height, width, channels) = ops.shape(inputs)[0], inputs.shape[1:]
            pixels = ops.reshape(inputs, (n, height * width, channels))
            maps = ops.reshape(ops.matmul(pixels, ops.expand_dims(columns, -1)), (n, height, width))
            maps = maps + ops.reshape(ops.take(self.bias, labels, axis=0), (-1, 1, 1))
        return ops.cast(maps, "float32")

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}
