"""What a loss has to know of Keras's own arithmetic on each backend."""

import keras

# Whether Keras divides the sum of a loss of float64 in float32.
DIVIDES_IN_FLOAT32 = keras.backend.backend() == "torch"
