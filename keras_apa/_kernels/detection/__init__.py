"""Convolutions, ReLU and sums over regions of large maps of channels last, in less memory and time than the backends'.

`zoo/detection/convolution.py` says what each function returns; here stands how each backend gets there.
"""

import keras

_BACKEND = keras.backend.backend()

if _BACKEND == "jax":
    from keras_apa._kernels.detection import jax as _backend
elif _BACKEND == "tensorflow":
    from keras_apa._kernels.detection import tensorflow as _backend
else:  # keras_apa._kernels knows no others
    from keras_apa._kernels.detection import torch as _backend

__all__ = ["RELAXES_SHAPES", "add_at", "convolve", "kernel_gradient", "relu", "repeat", "zeros_after"]

# Whether Keras's function of a step is one for images of any size from the second size on.
RELAXES_SHAPES = _backend.RELAXES_SHAPES
add_at = _backend.add_at
convolve = _backend.convolve
kernel_gradient = _backend.kernel_gradient
relu = _backend.relu
repeat = _backend.repeat
zeros_after = _backend.zeros_after
