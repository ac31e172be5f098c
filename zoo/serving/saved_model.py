"""A SavedModel that a default TensorFlow Serving server runs; only for processes on the TensorFlow backend."""

import contextlib
import json

import keras

from keras_apa import _keras_internals as internals
from zoo.serving.graph import Graph, in_float32, quiet

# A default server runs with XLA switched off: `XlaCallModule` is what JAX exports, `_XlaMustCompile` marks a function
# compiled with XLA, as Keras does with grouped convolutions.
_NEED_XLA = (b"XlaCallModule", b"_XlaMustCompile")
_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}
# Pillow's limit, and so that of `keras-apa predict`: a few bytes can say that they are gigabytes of pixels.
MAX_PIXELS = 89_478_485
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"


def write_saved_model(model, folder, settings):
    """Write the SavedModel with its signatures, its warm-up requests and a description into `folder`.

    Raises: ValueError: If the model has an operation that needs XLA.
    """
    import tensorflow as tf

    model = in_float32(model)
    with Graph(model, settings) as graph, plain_convolutions(model):
        write_signatures(
            model, folder, {"serving_default": serving_default(graph), "serve_jpeg": serve_jpeg(graph, settings)}
        )
        check_runs_without_xla(folder / "saved_model.pb")
        extra = folder / "assets.extra"
        extra.mkdir()
        (extra / "model.json").write_text(json.dumps(settings.description()), encoding="utf-8")
        height, width, channels = graph.example().shape[1:]
        picture = tf.io.encode_jpeg(tf.zeros((height, width, channels), "uint8")).numpy()
        requests = {
            "serving_default": {"images": graph.example()},
            "serve_jpeg": {"image_bytes": [picture]},
        }
        write_warmup_requests(extra / "tf_serving_warmup_requests", settings.name, requests)


def write_signatures(model, folder, functions):
    """Write `tf.function`s that use the variables of `model`, as signatures by name."""
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, function in functions.items():
        function.get_concrete_function()
        archive.add_endpoint(name, function)
    # A served model is not trained: no gradients of its custom operations.
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    with quiet("tensorflow"):  # it says where it wrote assets, here into a temporary folder
        archive.write_out(str(folder), options=options, verbose=False)


def serving_default(graph):
    """The signature for batches of pixels, `images`."""
    import tensorflow as tf

    spec = tf.TensorSpec((None, *graph.image_shape), "float32", name="images")

    def serve(images):
        with tf.control_dependencies([assert_not_empty(images)]):
            images = tf.identity(images)
        return graph(images)

    return tf.function(serve, input_signature=[spec], autograph=False)


def serve_jpeg(graph, settings):
    """The signature for batches of encoded JPEG or PNG images, `image_bytes`."""
    import tensorflow as tf

    def serve(image_bytes):
        outputs = graph(decode(image_bytes, settings.preprocessing))
        if graph.classes is None:
            return outputs
        names = tf.constant(settings.class_names)
        probabilities, indices = tf.math.top_k(outputs["probabilities"], min(settings.top_k, graph.classes))
        return {"classes": tf.gather(names, indices), "indices": indices, "probabilities": probabilities}

    return tf.function(serve, input_signature=[tf.TensorSpec((None,), "string", name="image_bytes")], autograph=False)


def decode(image_bytes, preprocessing):
    """Pixels of encoded images, decoded, resized and cropped, but not yet normalised.

    Args:
        image_bytes: String tensor `(batch,)`, JPEG or PNG. Transparency and EXIF's orientation are ignored.
        preprocessing: A `zoo.Preprocessing`: size, channels and interpolation.

    Returns: A float32 tensor `(batch, height, width, channels)` with values from 0 to 255.
    Raises: tf.errors.InvalidArgumentError: Of the request, when it runs: for an empty batch; with the places in the
        batch of what is neither JPEG nor PNG; with the place of an image of more than `MAX_PIXELS`, before it is
        decoded; or with what the decoder says of a broken image, which is not its place: a graph cannot catch that.
    """
    import tensorflow as tf

    spec = tf.TensorSpec((*preprocessing.image_size, preprocessing.channels), "float32")
    return decode_each(image_bytes, preprocessing.channels, lambda image: _fitted(image, preprocessing), spec)


def decode_each(image_bytes, channels, fit, spec):
    """`fit(image)` of each decoded image, uint8 `(height, width, channels)`, as a batch; errors as `decode`."""
    import tensorflow as tf

    is_jpeg = tf.strings.substr(image_bytes, 0, len(_JPEG)) == _JPEG
    is_image = is_jpeg | (tf.strings.substr(image_bytes, 0, len(_PNG)) == _PNG)
    others = tf.where(~is_image)[:, 0]
    message = "image_bytes must be JPEG or PNG; something else is at these places of the batch, counted from 0:"

    def pixels(inputs):
        encoded, is_jpeg, place = inputs
        with tf.control_dependencies([_assert_small(encoded, is_jpeg, place)]):
            encoded = tf.identity(encoded)
        image = tf.cond(
            is_jpeg,
            # The fast DCT, TensorFlow's default, is off by up to 13 of 255 from what Pillow and torchvision decode.
            lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_png(encoded, channels),
        )
        return fit(image)

    are_images = tf.debugging.Assert(tf.size(others) == 0, [message, others], summarize=20)
    with tf.control_dependencies([assert_not_empty(image_bytes), are_images]):
        places = tf.range(tf.size(image_bytes))
        return tf.map_fn(pixels, (image_bytes, is_jpeg, places), fn_output_signature=spec)


def assert_not_empty(batch):
    """Asserts that a batch has at least one element."""
    import tensorflow as tf

    return tf.debugging.Assert(tf.shape(batch)[0] > 0, ["the batch is empty"])


def _assert_small(encoded, is_jpeg, place):
    """Asserts that an encoded image has no more than `MAX_PIXELS`, from its header."""
    import tensorflow as tf

    def png_size():
        # Width and height stand at fixed places; of a file that is cut before them the decoder says what is wrong.
        header = tf.strings.substr(encoded + b"\0" * 24, 16, 8)
        return tf.cast(tf.io.decode_raw(header, "int32", little_endian=False), "int64")

    size = tf.cond(is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded, "int64")[:2], png_size)
    message = f"image_bytes may have {MAX_PIXELS} pixels; more has the image at this place of the batch, from 0:"
    return tf.debugging.Assert(tf.reduce_prod(size) <= MAX_PIXELS, [message, place])


def _fitted(image, preprocessing):
    """Resized and cropped with the roundings of torchvision's Resize and CenterCrop, or stretched.

    Only what the crop keeps is computed: the whole of a very thin image could be any number of pixels.
    """
    import tensorflow as tf

    size = tf.shape(image)[:2]
    wanted = tf.constant(preprocessing.image_size)
    if preprocessing.resize_size is None:
        resized = wanted
    else:
        # Whole numbers: in float32 the quotient could round up to the next pixel.
        resized = preprocessing.resize_size * tf.cast(size, "int64") // tf.cast(tf.reduce_min(size), "int64")
    corner = tf.round(tf.cast(resized - tf.cast(wanted, resized.dtype), "float32") / 2)
    fitted = tf.raw_ops.ScaleAndTranslate(
        images=image[tf.newaxis],
        size=wanted,
        scale=tf.cast(resized, "float32") / tf.cast(size, "float32"),
        translation=-corner,
        kernel_type=_KERNELS[preprocessing.interpolation],
        antialias=True,
    )
    # Bicubic interpolation overshoots at edges.
    return tf.clip_by_value(fitted[0], 0.0, 255.0)


def check_runs_without_xla(path):
    """A ValueError if the graph in `saved_model.pb` has an operation that a default server does not run."""
    graph = path.read_bytes()
    found = [name.decode() for name in _NEED_XLA if name in graph]
    if found:
        raise ValueError(
            f"the model has an operation that needs XLA ({', '.join(found)}), which a default TensorFlow Serving "
            "server does not run: a function with jit_compile=True, or a grouped convolution that is not a "
            "keras.layers.Conv2D. Use one that needs no XLA."
        )


def write_warmup_requests(path, name, requests):
    """Write the requests that a server sends itself before it serves, so that the first user does not wait.

    Args:
        path: `assets.extra/tf_serving_warmup_requests` of the SavedModel.
        name: Name of the model.
        requests: By signature, the inputs by name.
    """
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            log = PredictionLog()
            request = log.predict_log.request
            request.model_spec.name, request.model_spec.signature_name = name, signature
            for key, value in inputs.items():
                request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
            writer.write(log.SerializeToString())


@contextlib.contextmanager
def plain_convolutions(model, split=True):
    """While it lasts, convolutions of `model` use only operations that every TensorFlow for a processor has.

    Keras compiles grouped convolutions with XLA. Without XLA and oneDNN, TensorFlow has neither grouped convolutions
    fused with what follows them, nor channels-first ones; so one convolution a group, channels last. Formats that know
    groups need no `split`.
    """
    changed = []
    try:
        for layer in internals.all_layers(model):
            if isinstance(layer, keras.layers.Conv2D) and (layer.groups > 1 or layer.data_format == "channels_first"):
                changed.append(layer)
                layer.convolution_op = _plain_convolution(layer, split)
        yield
    finally:
        for layer in changed:
            del layer.convolution_op


def _plain_convolution(layer, split):
    import tensorflow as tf

    def convolve(inputs, kernel):
        first = layer.data_format == "channels_first"
        if first:
            inputs = tf.transpose(inputs, (0, 2, 3, 1))
        groups = layer.groups if split else 1
        parts = zip(tf.split(inputs, groups, -1), tf.split(tf.convert_to_tensor(kernel), groups, -1), strict=True)
        settings = {"strides": layer.strides, "padding": layer.padding.upper(), "dilations": layer.dilation_rate}
        outputs = tf.concat([tf.nn.convolution(x, weights, **settings) for x, weights in parts], -1)
        return tf.transpose(outputs, (0, 3, 1, 2)) if first else outputs

    return convolve
