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

    >>> import zoo
    >>> zoo.list_models("se_resnet?")
    ['se_resnet8']
    """
    return [name for name in ARCHITECTURES if fnmatch.fnmatchcase(name, pattern)]


def create_model(name, /, weights=None, **options):
    """Build a network by name.

    Args:
        name: One of `list_models()`, such as `"se_resnet32"`; by position only, since the keyword `name=` is that of
            the model.
        weights: `None`; the name of published weights of this network (`zoo.list_weights()`), whose options and
            preprocessing then become the model's; or the path of weights for this very network: `.weights.h5`,
            `.keras`, or a PyTorch checkpoint (`.pth`, `.pt`, `.safetensors`). With another number of `classes` than
            the weights have, the classifier is new, and a warning says so. The options of a `.keras` file must be
            those given here; its preprocessing comes along, and class names and prior correction with its classifier.
            The other files hold tensors alone: an activation or gate without parameters cannot be checked in them.
        classes: Number of classes; `None` for that of the weights, else 1000, or 100 for the networks for small
            images.
        activation: `"relu"`, `"aglu"`, any Keras activation name, or a layer, which is cloned for each place with
            fresh start values: `activation=AGLU(lambda_gradient="paper")`.
        gate: Channel gate of `se_` and `cb_` networks: `"sigmoid"` (default), `"apa"`, `"gumbel"`,
            `"sigmoid_temperature"`, `"gumbel_temperature"` or a layer. In `se_` networks `"apa"` brings LayerNorm and
            Dropout 0.1 along (APA* of the paper).
        spatial_gate: Spatial gate of `cb_` and `sp_` networks; the same choice.
        gate_normalization, gate_dropout: LayerNorm in the channel gate, and the rate of its dropout; `None` leaves
            both to the gate.
        classifier: `"linear"`, `"cosine"`, `"learned_cosine"`, `"normalized"`, `"wrapped_cauchy"` or a layer.
        include_top: Pool and classify; without it the output is the last stage, pooled by `pooling`.
        pooling: `None`, `"avg"` or `"max"`, without the top; with it, it is ignored, as in keras.applications.
        pyramid: Give the output of every stage instead, a dict `{"stage1": ..., "stage2": ...}`, without the top;
            `pooling` and `classifier_activation` have no place then.
        input_shape: Shape of an image; height and width may be `None`. Default `(224, 224, 3)`, or `(32, 32, 3)` for
            the networks for small images (channels first: `(3, 224, 224)`).
        classifier_activation: `None` ends the model in logits. Ignored without the top, as in keras.applications.
        stem: `"imagenet"` (7x7 with stride 2, then pooling) or `"cifar"` (3x3); `None` takes the network's own.
        frozen_batch_norm: Batch norms use their moving statistics in training too, and are never trained.
        data_format: `"channels_last"` or `"channels_first"`; `None` takes `keras.config.image_data_format()`.
        name: Name of the model, `None` for that of the network. Two networks of a kind in one model need two names.
        input_tensor: A `keras.Input`, or what was computed from one, to start from in place of a new input; the model
            then starts at that input. `input_shape` may be left out. For two networks in one
            model call them, as in the example below: their inner layers have the same names.

    Returns:
        A functional `keras.Model`, whose layers are named by stage, block and role.

    Raises:
        ValueError: For an unknown name (with the nearest valid ones), an option that the network has no place for
            (with the networks that have it), or weights that do not fit.

    >>> import zoo
    >>> model = zoo.create_model("se_resnet8", classes=10, activation="aglu", gate="apa", input_shape=(16, 16, 1))
    >>> model.output_shape
    (None, 10)

    Two networks in one model:

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
