"""The dataclasses of a recipe. They import neither Keras nor TensorFlow."""
