"""The network of a recipe: built, started from earlier weights, and partly frozen."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import keras
import numpy as np
from keras import ops

import zoo
from keras_apa.layers import AGLU, PriorCorrection
from training.config.classification import EvaluationOptions, ModelOptions, Recipe, StartOptions
from training.data.classification.source import Source
from training.errors import OptionError
from training.models import load_model, precision
from zoo.weight_files import different_layers

CLASSIFIER = "classifier"
_LAST_STAGE = "stage4_"


@keras.saving.register_keras_serializable(package="keras_apa")
class ClassScale(keras.layers.Layer):
    """Learnable weight scaling (LWS): `s_c * z_c`, one factor a class, from 1.

    Input shape: `(..., classes)`, logits.
    Output shape: the same.
    Source: Decoupling Representation and Classifier for Long-Tailed Recognition (ICLR 2020), Sec. 4.1.

    >>> ClassScale()(keras.ops.ones((1, 3))).shape == (1, 3)
    True
    """

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="ones", autocast=False)
        super().build(input_shape)

    def call(self, inputs):
        return inputs * ops.cast(self.scale, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape


def build_model(recipe: Recipe, source: Source) -> keras.Model:
    """The zoo's network with as many classes as the data has, their names, and how test images are prepared.

    Raises:
        ValueError: An unknown network or option, or weights that do not fit.
    """
    preprocessing = test_preprocessing(recipe, source)
    training = (recipe.data.image_size,) * 2 if recipe.data.image_size else tuple(source.image_shape[:2])
    test = training if preprocessing is None else tuple(preprocessing.image_size)
    # Where the test images are larger than those of the training, the network takes any size.
    sides = training if training == test else (None, None)
    with precision(recipe.precision):
        model = zoo.create_model(
            recipe.model.name,
            classes=source.num_classes,
            input_shape=(*sides, source.image_shape[2]),
            # tf.data makes its images so, whatever Keras is configured to.
            data_format="channels_last",
            **model_arguments(recipe.model),
        )
        if recipe.start.weights:
            start_from(model, recipe.start)
        model = _with_head(model, recipe, source)
    model.class_names = source.class_names
    model.preprocessing = preprocessing
    return model


def model_arguments(options: ModelOptions) -> dict[str, object]:
    """What `zoo.create_model` is given; AGLU as a layer where its gradient is not the usual one."""
    options = options.with_used_lambda_gradient(given=options.lambda_gradient != "exact")
    arguments = {**options.switches(), **options.options}
    if options.lambda_gradient == "paper":
        arguments["activation"] = AGLU(lambda_gradient="paper")
    return arguments


def test_preprocessing(recipe: Recipe, source: Source) -> zoo.Preprocessing | None:
    """How a test image is prepared: as the source says, at the sizes of the recipe."""
    data = recipe.data
    side = data.test_image_size or data.image_size
    if source.preprocessing is None or not side:
        return source.preprocessing
    preprocessing = source.preprocessing.at_size((side, side))
    return dataclasses.replace(preprocessing, resize_size=data.resize_size) if data.resize_size else preprocessing


def start_from(model: keras.Model, options: StartOptions) -> None:
    """Loads weights into the network, all of them or all but the classifier's.

    Raises:
        ValueError: Nothing is there, or it belongs to another network (the tensors are named).
    """
    path = Path(options.weights)
    if path.suffix in (".pth", ".pt", ".safetensors"):
        if not path.is_file():
            raise OptionError(f"start.weights must be a file that is there; given: {options.weights!r}.")
        zoo.load_torch_checkpoint(model, path, skip_classifier=not options.keep_classifier)
    elif options.weights in zoo.list_weights():
        name, weights = options.weights.split("/")
        earlier = zoo.create_model(name, weights=weights, data_format="channels_last")
        _copy(earlier, model, options)
    else:
        _copy(load_model(_model_file(path) if path.is_dir() else options.weights), model, options)
    if options.redraw_activations:
        redraw_activations(model)
    if options.redraw_classifier and not options.keep_classifier:
        kernel = model.get_layer(CLASSIFIER).kernel
        kernel.assign(keras.initializers.GlorotUniform()(kernel.shape))


def _model_file(folder: Path) -> str:
    """The model of a run folder; other folders are presets."""
    files = sorted(folder.glob("*.keras"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise OptionError(
            f"start.weights must be a folder with one model; given: {os.fspath(folder)!r}, which has {names}. Name one "
            "of these files."
        )
    return os.fspath(files[0] if files else folder)


def _copy(earlier: keras.Model, model: keras.Model, options: StartOptions) -> None:
    """By layer name, completely or not at all."""
    found = {layer.name: layer for layer in earlier.layers if layer.weights}
    pairs: list[tuple[keras.Variable, keras.Variable]]
    pairs, problems = [], []
    for layer in model.layers:
        if not layer.weights or (layer.name == CLASSIFIER and not options.keep_classifier):
            continue
        other = found.get(layer.name)
        shapes, expected = ([tuple(w.shape) for w in (of.weights if of else ())] for of in (other, layer))
        if shapes != expected:
            problems.append(f"{layer.name} has {shapes or 'no weights'}, needed are {expected}")
        else:
            pairs.extend(zip(layer.weights, other.weights, strict=True))  # type: ignore[union-attr]  # of equal shapes
    known = {layer.name for layer in model.layers}
    problems += [f"{name} has no place" for name in found if name not in known and name != CLASSIFIER]
    # Activations and gates without parameters differ in no shape.
    problems = different_layers(earlier, model, options.keep_classifier) or problems
    if problems:
        raise OptionError(
            f"start.weights must be of the network {model.name}; given: {options.weights!r}, which is of another: "
            f"{'; '.join(problems[:3])}{f'; and {len(problems) - 3} more' if len(problems) > 3 else ''}."
        )
    for target, source in pairs:
        target.assign(source)


def redraw_activations(model: keras.Model) -> None:
    """Draws every kappa and lambda of the last stage anew from U(0, 1)."""
    for variable in _last_stage(model):
        if variable.name in ("kappa", "lambda"):
            variable.assign(keras.random.uniform(variable.shape))


def freeze(model: keras.Model, trainable: str) -> list[keras.Variable]:
    """Leaves only the classifier (or the last stage and it, or the class scale) to the optimiser; what stays trainable.

    The layers themselves stay as they are, so that batch norms go on normalising by the batch and moving their
    statistics: Keras would put a layer that is not trainable into inference mode.
    """
    if trainable == "all":
        return model.trainable_variables
    head = model.get_layer("class_scale" if trainable == "class_scale" else CLASSIFIER)
    kept = list(head.trainable_variables)
    if trainable == "last_stage":
        # The classifier's scale is not among what the authors unfreeze.
        kept = [v for v in kept if v.name != "scale"] + [v for v in _last_stage(model) if v.trainable]
    identities = {id(variable) for variable in kept}
    for variable in model.trainable_variables:
        if id(variable) not in identities:
            variable.trainable = False
    return model.trainable_variables


def _last_stage(model: keras.Model) -> list[keras.Variable]:
    layers = [layer for layer in model.layers if layer.name.startswith(_LAST_STAGE)]
    if not layers:
        raise OptionError(
            f"start.trainable must be another than 'last_stage' for a network without four stages; given: {model.name}."
        )
    return [variable for layer in layers for variable in layer.weights]


def _with_head(model: keras.Model, recipe: Recipe, source: Source) -> keras.Model:
    """The network with what the recipe puts behind its logits."""
    logits = model.output
    if recipe.start.trainable == "class_scale":
        logits = ClassScale(name="class_scale", dtype="float32")(logits)
    if recipe.evaluation.prior_correction != "none":
        logits = correction(recipe.evaluation, source)(logits)
    return model if logits is model.output else zoo.Classifier(model.input, logits, name=model.name)


def correction(options: EvaluationOptions, source: Source) -> PriorCorrection:
    """The layer that corrects logits at inference."""
    return PriorCorrection(
        source.class_counts,
        options.prior_correction,  # type: ignore[arg-type]  # another than "none" here
        options.tau,
        name="prior_correction",
        dtype="float32",
    )


def published_model(model: keras.Model) -> keras.Model:
    """The model as it is saved: no optimizer and no loss, and a class scale multiplied into the classifier.

    PyTorch's optimizers load on PyTorch only, and the learning rate's schedule only where `training` is imported.
    """
    names = [layer.name for layer in model.layers]
    outputs = model.output
    if "class_scale" in names:
        head, scale = model.get_layer(CLASSIFIER), model.get_layer("class_scale")
        factor = ops.convert_to_numpy(scale.scale)
        if not isinstance(head, keras.layers.Dense):
            raise OptionError(
                "start.trainable must be another than 'class_scale' unless the classifier is linear; given: "
                f"{type(head).__name__}."
            )
        head.kernel.assign(ops.convert_to_numpy(head.kernel) * factor)
        if head.bias is not None:
            head.bias.assign(ops.convert_to_numpy(head.bias) * factor)
        scale.scale.assign(np.ones_like(factor))
        outputs = head.output
        if "prior_correction" in names:
            outputs = model.get_layer("prior_correction")(outputs)
    return zoo.Classifier(
        model.input,
        outputs,
        name=model.name,
        preprocessing=getattr(model, "preprocessing", None),
        class_names=getattr(model, "class_names", None),
    )


def normalize_classifier(model: keras.Model, tau: float) -> None:
    """tau-normalisation: `w / |w|^tau` for the weights of each class, without bias.

    Raises:
        ValueError: The classifier has no plain weights of its own.
    Source: Decoupling Representation and Classifier for Long-Tailed Recognition (ICLR 2020), Eq. 3.
    """
    if not tau:
        return
    head = model.get_layer(CLASSIFIER)
    if not isinstance(head, keras.layers.Dense):
        raise OptionError(
            f"evaluation.tau_normalization must be 0 unless the classifier is linear; given: {tau:g} with "
            f"{type(head).__name__}."
        )
    kernel = ops.convert_to_numpy(head.kernel)
    norm = np.linalg.norm(kernel, axis=0, keepdims=True)
    head.kernel.assign(kernel / np.maximum(norm, 1e-12) ** tau)
    if head.bias is not None:
        head.bias.assign(np.zeros(head.bias.shape, "float32"))
