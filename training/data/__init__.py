"""Sources of images, one module each, and the `tf.data` pipeline that feeds them to `model.fit`."""
