"""The feature pyramid against torchvision's, on sizes that do not divide."""

import keras
import numpy as np
from keras import ops

from zoo.detection.fpn import FeaturePyramid, upsample_nearest


def test_outputs_of_every_level(run, blocks):
    inputs = [np.moveaxis(blocks[f"fpn/in_{level}"], 1, -1) for level in range(4)]
    pyramid = FeaturePyramid(4)
    pyramid.build([x.shape for x in inputs])
    for kind, convolutions in (("inner", pyramid.laterals), ("layer", pyramid.outputs)):
        for level, convolution in enumerate(convolutions):
            weight = blocks[f"fpn/weights/{kind}_blocks.{level}.0.weight"]
            convolution.set_weights([weight.transpose(2, 3, 1, 0), blocks[f"fpn/weights/{kind}_blocks.{level}.0.bias"]])
    outputs = run(lambda *maps: pyramid(list(maps)), *inputs)
    for name, output in zip((0, 1, 2, 3, "pool"), outputs, strict=True):
        np.testing.assert_allclose(output, np.moveaxis(blocks[f"fpn/out_{name}"], 1, -1), rtol=1e-5, atol=2e-6)
    assert [tuple(x.shape) for x in outputs] == [
        tuple(s) for s in pyramid.compute_output_shape([x.shape for x in inputs])
    ]


def test_nearest_upsampling_to_any_size():
    x = ops.reshape(ops.arange(7, dtype="float32"), (1, 7, 1, 1))
    rows = ops.convert_to_numpy(upsample_nearest(x, (13, 1))).reshape(-1)
    assert rows.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]


def test_config_round_trip():
    config = FeaturePyramid(8, kernel_initializer="zeros").get_config()
    copy = FeaturePyramid.from_config(config)
    assert copy.get_config() == config
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(copy)).filters == 8
