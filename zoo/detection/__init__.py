"""Two-stage detection: Faster and Mask R-CNN in plain `keras.ops`."""
