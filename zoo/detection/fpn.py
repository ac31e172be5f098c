"""Feature pyramid: laterals, a path from coarse to fine, an output convolution a level, and a pooled level."""

import keras
import numpy as np
from keras import layers, ops

from keras_apa.layers.composite import Composite
from zoo.detection.convolution import convolve, pointwise

# PyTorch's kaiming_uniform_(a=1), with which torchvision starts the pyramid; Xavier-uniform is mmdet's.
LECUN_UNIFORM = {
    "class_name": "VarianceScaling",
    "config": {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"},
}


@keras.saving.register_keras_serializable(package="keras_apa")
class FeaturePyramid(Composite):
    """Feature Pyramid Network: `P_l = conv3x3(conv1x1(C_l) + upsample(M_(l+1)))`, and the coarsest level every second.

    Upsampling repeats the nearest value, to whatever size the finer level has. There is no norm and no activation.

    Args:
        filters: Channels of every output.
        kernel_initializer: Of all convolutions.
        **kwargs: `name`, `dtype`, `trainable` of `keras.layers.Layer`.

    Input shape: A list of `(batch, height, width, channels)`, finest first.
    Output shape: A list with one map more, `(batch, height, width, filters)`.
    Source: Feature Pyramid Networks for Object Detection (CVPR 2017), Sec. 3 and 4.1.

    >>> from zoo.detection.fpn import FeaturePyramid
    >>> maps = FeaturePyramid(8)([keras.ops.ones((1, 9, 9, 3)), keras.ops.ones((1, 5, 5, 6))])
    >>> [tuple(x.shape) for x in maps]
    [(1, 9, 9, 8), (1, 5, 5, 8), (1, 3, 3, 8)]
    """

    def __init__(self, filters=256, kernel_initializer=LECUN_UNIFORM, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.laterals, self.outputs = [], []

    def build(self, input_shape):
        for level, shape in enumerate(input_shape, start=1):
            for convolutions, kind, size in ((self.laterals, "lateral", 1), (self.outputs, "output", 3)):
                convolution = layers.Conv2D(
                    self.filters,
                    size,
                    padding="same",
                    kernel_initializer=self.kernel_initializer.clone(),
                    data_format="channels_last",
                    dtype=self.dtype_policy,
                    name=f"{kind}{level}",
                )
                convolution.build(shape if kind == "lateral" else (*shape[:-1], self.filters))
                convolutions.append(convolution)
        super().build(input_shape)

    def call(self, inputs):
        merged = [pointwise(x, lateral.kernel) + lateral.bias for lateral, x in zip(self.laterals, inputs, strict=True)]
        for level in range(len(merged) - 2, -1, -1):
            merged[level] = merged[level] + upsample_nearest(merged[level + 1], merged[level].shape[1:3])
        outputs = [convolve(x, output.kernel) + output.bias for output, x in zip(self.outputs, merged, strict=True)]
        return [*outputs, outputs[-1][:, ::2, ::2, :]]

    def compute_output_shape(self, input_shape):
        shapes = [(*shape[:-1], self.filters) for shape in input_shape]
        pooled = tuple(None if size is None else -(-size // 2) for size in shapes[-1][1:3])
        return [*shapes, (shapes[-1][0], *pooled, self.filters)]

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def upsample_nearest(x, size):
    """Repeat values to a height and width as PyTorch does: position `i` takes `floor(i * in / out)`.

    Not `keras.ops.image.resize`, whose backends round in different ways where the sizes do not divide.

    >>> from zoo.detection.fpn import upsample_nearest
    >>> x = keras.ops.reshape(keras.ops.arange(3.0), (1, 1, 3, 1))
    >>> [int(i) for i in keras.ops.reshape(upsample_nearest(x, (1, 5)), (-1,))]
    [0, 0, 1, 1, 2]
    """
    for axis, (given, wanted) in enumerate(zip(x.shape[1:3], size, strict=True), start=1):
        if wanted == given:
            continue
        if wanted == 2 * given:
            x = ops.repeat(x, 2, axis=axis)
        else:
            index = np.floor(np.arange(wanted, dtype="float32") * np.float32(given / wanted)).astype("int32")
            x = ops.take(x, ops.convert_to_tensor(index), axis=axis)
    return x
