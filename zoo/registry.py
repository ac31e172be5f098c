"""Every network by name: `create_model`, `list_models`, and one function for each."""

import fnmatch
import functools
import inspect
import numbers

from keras_apa._checks import check_name
from zoo.cifar_resnet import CIFAR_RESNETS
from zoo.resnet import IMAGENET_RESNETS, build_resnet
from zoo.weights import create_with_weights

ARCHITECTURES = {**CIFAR_RESNETS, **IMAGENET_RESNETS}
OPTIONS = tuple(name for name in inspect.signature(build_resnet).parameters if name not in ("network", "architecture"))


def list_models(pattern="*"):
    """Names of the networks, those that match a shell pattern.

    Args:
        pattern: A pattern with the wildcards `*`, `?` and `[...]`. The default matches all.

    Returns:
        A list of names for `zoo.create_model`.

    >>> import zoo
    >>> zoo.list_models("se_resnet?")
    ['se_resnet8']
    """
    return [name for name in ARCHITECTURES if fnmatch.fnmatchcase(name, pattern)]


def create_model(name, /, weights=None, **options):
    """Build a network by name.

    Args:
        name: One of `list_models()`, such as `"se_resnet32"`. Pass it by position, because the keyword `name=` is the
            name of the model.
        weights: One of the following:

            `None` for start values.

            The name of published weights of this network (`zoo.list_weights()`). The model then takes their options
            and preprocessing.

            The path of weights for this very network: `.weights.h5`, `.keras`, or a PyTorch checkpoint (`.pth`,
            `.pt`, `.safetensors`). The options of a `.keras` file must be those given here. The model takes its
            preprocessing, and with its classifier also its class names and prior correction. The other files hold
            only tensors, so an activation or gate without parameters cannot be checked.

            If `classes` differs from the number of classes of the weights, the classifier is new, and a warning says
            so.
        classes: The number of classes. `None` takes that of the weights. Without weights it is 1000, or 100 for the
            networks for small images.
        activation: `"relu"`, `"aglu"`, the name of any Keras activation, or a layer such as
            `AGLU(lambda_gradient="paper")`. A layer is cloned for each place, with fresh start values.
        gate: The channel gate of `se_` and `cb_` networks: `"sigmoid"` (default), `"apa"`, `"gumbel"`,
            `"sigmoid_temperature"`, `"gumbel_temperature"` or a layer. In `se_` networks, `"apa"` adds LayerNorm and
            Dropout 0.1 (APA* in the paper).
        spatial_gate: The spatial gate of `cb_` and `sp_` networks, with the same choices.
        gate_normalization, gate_dropout: Whether the channel gate has a LayerNorm, and its dropout rate. `None` takes
            the defaults of the gate.
        classifier: `"linear"`, `"cosine"`, `"learned_cosine"`, `"normalized"`, `"wrapped_cauchy"` or a layer.
        include_top: Whether to pool and classify. Without the top, the output is the last stage, pooled by `pooling`.
        pooling: `None`, `"avg"` or `"max"`, for a model without the top. With the top it is ignored, as in
            keras.applications.
        pyramid: Whether to return the output of every stage, a dict `{"stage1": ..., "stage2": ...}`, instead of the
            top. `pooling` and `classifier_activation` must then be left out.
        input_shape: The shape of an image; height and width may be `None`. The default is `(224, 224, 3)`, or
            `(32, 32, 3)` for the networks for small images. For channels first it is `(3, 224, 224)` or
            `(3, 32, 32)`.
        classifier_activation: The activation of the classifier. With `None` the model returns logits. Without the top
            it is ignored, as in keras.applications.
        stem: `"imagenet"` (7x7 with stride 2, then pooling) or `"cifar"` (3x3). `None` takes the network's own.
        frozen_batch_norm: Whether to freeze the batch norms: they use their moving statistics in training too, and
            are never trained.
        data_format: `"channels_last"` or `"channels_first"`. `None` takes `keras.config.image_data_format()`.
        name: The name of the model. `None` takes the name of the network. Two networks of the same kind in one model
            need two names.
        input_tensor: A `keras.Input`, or a tensor that was computed from one. The model uses it instead of a new
            input and starts at that `keras.Input`. You may leave `input_shape` out. Do not use it to put two networks
            into one model, because their inner layers have the same names; call the networks as in the second
            example.

    Returns:
        A functional `keras.Model`, whose layers are named by stage, block and role.

    Raises:
        ValueError: If the name is unknown (the message lists the nearest valid ones), if the network does not have an
            option (the message lists the networks that have it), or if the weights do not fit.

    >>> import zoo
    >>> model = zoo.create_model("se_resnet8", classes=10, activation="aglu", gate="apa", input_shape=(16, 16, 1))
    >>> model.output_shape
    (None, 10)

    To use two networks in one model, call each of them:

    >>> images = keras.Input((32, 32, 3))
    >>> views = [zoo.create_model("resnet8", classes=10, name=name)(images) for name in ("left", "right")]
    >>> keras.Model(images, keras.layers.average(views)).output_shape
    (None, 10)
    """
    architecture = ARCHITECTURES[check_name(name, ARCHITECTURES, "model")]
    for option in options:
        check_name(option, OPTIONS, f"an option of {name}")
    if isinstance(options.get("classes"), numbers.Integral) and not isinstance(options["classes"], bool):
        options["classes"] = int(options["classes"])  # `labels.max() + 1` is NumPy's, which Keras does not take
    build = functools.partial(build_resnet, name, architecture)
    return build(**options) if weights is None else create_with_weights(name, build, weights, options)


def _builder(name):
    def build(weights=None, **options):
        return create_model(name, weights=weights, **options)

    build.__name__ = build.__qualname__ = name
    keyword = inspect.Parameter.KEYWORD_ONLY
    options = [inspect.signature(build_resnet).parameters[option].replace(kind=keyword) for option in OPTIONS]
    signature = inspect.signature(build)
    # `inspect` reads this attribute, but no class declares it.
    build.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[signature.parameters["weights"], *options]
    )
    build.__doc__ = f"Build `{name}`; arguments and errors as `zoo.create_model`."
    return build


FUNCTIONS = {name: _builder(name) for name in ARCHITECTURES}
