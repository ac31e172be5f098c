"""The model that the tests of the export use, images for it, and what Keras gives for them."""

import io

import keras
import numpy as np
from PIL import Image

import zoo
from keras_apa.layers import PriorCorrection
from zoo import Preprocessing

PREPROCESSING = Preprocessing(image_size=(16, 12), resize_size=18, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
GREY = Preprocessing(image_size=(16, 16), channels=1, mean=(0.5,), std=(0.25,))
CLASS_NAMES = ("Uhu", "Amsel", "Star", "Dohle", "Häher")
COUNTS = [900, 500, 60, 20, 3]


def classifier(preprocessing=PREPROCESSING, name="se_resnet8", **options):
    """A network with AGLU and APA* gates, weights as if it were trained, and a prior correction behind it."""
    keras.utils.set_random_seed(3)
    if name.startswith("se_"):
        options = {"activation": "aglu", "gate": "apa", **options}
    shape = (*preprocessing.image_size, preprocessing.channels)
    network = zoo.create_model(name, classes=5, input_shape=shape, **options)
    outputs = PriorCorrection(COUNTS)(network.output)
    model = zoo.Classifier(network.input, outputs, preprocessing=preprocessing, class_names=CLASS_NAMES)
    return randomize(model)


def randomize(model):
    """The model with statistics and gains that are not those of a fresh one."""
    rng = np.random.default_rng(4)
    for variable in model.variables:
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype("float32"))
        elif variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(rng.normal(0.0, 0.3, variable.shape).astype("float32"))
    return model


def images(count, preprocessing=PREPROCESSING, seed=0):
    """Pixels from 0 to 255, as floats."""
    shape = (count, *preprocessing.image_size, preprocessing.channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


def logits(model, pixels, preprocessing=None):
    """What Keras gives for pixels."""
    prepared = keras.ops.convert_to_numpy((preprocessing or model.preprocessing)(pixels, "channels_last"))
    return keras.ops.convert_to_numpy(model(prepared, training=False))


def softmax(values):
    """Along the last axis, in float64."""
    exponentials = np.exp(values.astype("float64") - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def encode(pixels, format="PNG", **options):
    """The bytes of an image file."""
    content = io.BytesIO()
    Image.fromarray(np.squeeze(pixels).astype("uint8")).save(content, format, **options)
    return content.getvalue()


def smooth_picture(height, width, channels=3):
    """Pixels that a JPEG keeps nearly as they are."""
    y, x = np.mgrid[0:height, 0:width]
    layers = [127 + 90 * np.sin(x / (5 + i) + y / (9 - i)) for i in range(channels)]
    return np.stack(layers, -1).astype("uint8")
