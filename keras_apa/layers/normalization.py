"""Batch normalisation whose running variance is PyTorch's, and layer normalisation that can be converted."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_apa import _kernels
from keras_apa._checks import check_bool
from keras_apa._precision import at_least, is_float64
from keras_apa._typing import Tensor


@keras.saving.register_keras_serializable(package="keras_apa")
class UnbiasedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation whose moving variance is unbiased, `n / (n - 1)` times the batch's, as in PyTorch.

    It is a `keras.layers.BatchNormalization` with the same weights and weight names, and its outputs in training are
    the same. Only the variance that it keeps for inference differs, by 2 % at `n = 50`. `n` is the number of values
    behind one statistic: batch times positions, and with `synchronized=True` over all replicas.

    Args:
        axis, momentum, epsilon, ...: As in `keras.layers.BatchNormalization`. The defaults `momentum=0.9` and
            `epsilon=1e-5` are PyTorch's.
        frozen: Whether to use the moving statistics in training too and never train the layer, as in a detector's
            backbone. Setting `trainable` of a model around it does not change this.

    Input shape: any, with the channels on `axis`.
    Output shape: the same as the input shape.

    >>> from keras_apa.layers import UnbiasedBatchNormalization
    >>> layer = UnbiasedBatchNormalization(momentum=0.0)
    >>> _ = layer(keras.ops.convert_to_tensor([[0.0], [2.0]]), training=True)
    >>> round(float(layer.moving_variance[0]), 4)  # 2, not 1
    2.0
    """

    def __init__(
        self, axis: int = -1, momentum: float = 0.9, epsilon: float = 1e-5, frozen: bool = False, **kwargs: Any
    ) -> None:
        self._frozen = check_bool(frozen, "frozen")
        if frozen:
            kwargs["trainable"] = False
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    @property
    def frozen(self) -> bool:
        """Whether the layer never trains."""
        return self._frozen

    @property
    def trainable(self) -> bool:
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value and not self._frozen)

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor | None = None) -> Tensor:
        if not (training and self.trainable) or self.renorm:
            return super().call(inputs, training=training, mask=mask)
        dtype = "float64" if is_float64(self.moving_variance) else "float32"
        kept = ops.cast(self.moving_variance, dtype) * self.momentum
        outputs = super().call(inputs, training=training, mask=mask)
        added = ops.cast(self.moving_variance, dtype) - kept
        count = ops.cast(self._values_per_channel(inputs, mask), dtype)
        self.moving_variance.assign(
            ops.cast(kept + added * (count / at_least(count - 1.0, 1.0)), self.moving_variance.dtype)
        )
        return outputs

    def _values_per_channel(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            count = ops.sum(ops.cast(mask, "float32"))
        else:
            shape = ops.shape(inputs)
            axis = self.axis % len(shape)
            count = 1.0
            for i, size in enumerate(shape):
                if i != axis:
                    count = count * ops.cast(size, "float32")
        return count * _kernels.num_replicas() if self.synchronized else count

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "frozen": self.frozen}


def layer_norm(layer: keras.layers.Layer, inputs: Tensor) -> Tensor:
    """What a `LayerNormalization` over the last axis makes of its inputs.

    Keras asks the tensor for the size of that axis. In a trace with a dynamic batch, PyTorch's converter to ONNX stops
    there with an error, so that a model that is being converted is made of plain operations instead.
    """
    if not _kernels.is_converting():
        return layer(inputs)
    x = ops.cast(inputs, "float32")
    x = x - ops.mean(x, axis=-1, keepdims=True)
    x = x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + layer.epsilon)
    x = x * ops.cast(layer.gamma, "float32") + ops.cast(layer.beta, "float32")
    return ops.cast(x, layer.compute_dtype)
