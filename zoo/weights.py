"""Published weights: the link of each file, its network and options, its published accuracy, and how to load it.

The files belong to their authors: those of Adaptive Parametric Activation (kostas1515/AGLU) and of Balanced
Meta-Softmax (jiawei-ren/BalancedMetaSoftmax-Classification). They are fetched from the authors' links, and this
project's licence does not cover them.
"""

import dataclasses
import difflib
import fnmatch
import os
import warnings
from collections.abc import Mapping

import keras

from keras_apa.layers import AGLU, APA, CosineDense, PriorCorrection
from keras_apa.layers.activations import Sigmoid
from zoo import preprocessing as images
from zoo.classifier import Classifier
from zoo.download import cache_folder, download, google_drive
from zoo.torch_checkpoint import load_authors
from zoo.weight_files import SUFFIXES, has_classifier, has_suffix, load_weights, open_weights

# Images of each class of ImageNet-LT, largest first: 115,846 of 1000 classes (385 many, 479 medium, 136 few), from the
# lists of JiahuiKChen/LT-classification, which count the published one. First those above 100, then how many classes
# have 100 images, 99, ... down to 5.
_MANY = """
    1280 1246 1173 1121 1053 819 787 775 714 683 679 652 642 625 619 611 604 566 534 516 511 507 502 496 481 480 472
    472 469 459 456 454 446 428 422 418 413 411 398 393 392 392 391 382 381 376 376 372 370 367 354 352 349 349 346
    346 343 340 333 332 330 330 328 323 317 315 310 310 310 306 305 305 303 302 299 298 297 297 296 292 290 290 288
    287 285 285 284 284 283 283 282 281 281 279 278 275 274 272 272 271 268 264 263 258 257 253 253 252 252 250 248
    247 246 245 244 242 241 240 239 238 236 236 236 233 232 232 232 231 231 229 229 226 224 222 221 220 220 218 217
    216 215 214 211 209 209 208 205 204 203 202 201 199 198 197 197 194 194 194 192 191 189 189 189 188 188 187 186
    186 186 186 184 183 182 182 181 181 180 179 179 178 178 177 175 175 175 174 174 174 173 173 172 172 172 171 171
    171 170 170 170 169 169 168 167 167 167 167 167 166 165 165 165 165 164 164 163 162 161 161 159 158 157 157 157
    157 156 155 155 155 154 153 152 152 151 150 150 150 150 150 150 149 149 148 148 147 146 145 143 143 143 143 143
    143 142 141 141 141 141 140 140 140 138 138 138 137 137 137 137 137 137 137 137 137 135 134 134 134 134 134 134
    134 133 133 133 133 133 132 132 131 130 130 130 129 128 128 128 128 128 127 127 127 126 126 126 126 125 125 125
    125 124 124 124 123 123 123 122 122 122 122 121 121 120 119 119 119 119 119 119 118 118 117 116 116 116 116 115
    114 114 114 114 114 113 113 113 112 112 112 112 111 111 111 110 110 110 110 110 109 109 108 108 108 108 107 107
    106 106 105 105 105 104 104 104 103 103 103 103 102 102 102 102 102 102 101 101 101 101
"""
_REST = """
    6 2 2 1 6 2 2 5 3 2 4 1 1 8 8 7 2 6 8 7 7 3 3 4 3 7 2 5 8 6 2 6 2 4 7 5 6 8 4 3 4 6 4 4 8 7 7 7 3 4 9 4 7 6 5 8
    7 13 7 8 2 9 7 5 9 11 10 6 13 12 8 5 9 7 9 12 5 8 10 6 10 13 5 8 9 12 11 5 5 11 16 5 11 8 12 5
"""
IMAGENET_LT_COUNTS = (
    *map(int, _MANY.split()),
    *(count for count, classes in zip(range(100, 4, -1), _REST.split(), strict=True) for _ in range(int(classes))),
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WeightSet:
    """One file of published weights, and the facts that you need to use it.

    Args:
        model: The network, one of `zoo.list_models()`.
        name: The name of the weights, for `weights=`.
        url: The link of the file.
        classes: The number of outputs.
        options: The options of the network that the weights belong to.
        assumed: The `options` that the authors do not state. A caller may override these.
        preprocessing: The `zoo.Preprocessing` of the published evaluation.
        top1: The published top-1 accuracy in percent, measured with the `correction` below.
        source: Where that number is published.
        class_order: The meaning of output 0, 1, ...
        correction: The `variant` of the `PriorCorrection` behind the logits with which the published number was
            measured.
        class_counts: The number of training images of each class, in the order of the outputs.
        repository: The authors' repository on GitHub.
        sha256: The hash of the file. If it is `None`, the first download records it.
        notes: Remarks for users.

    >>> from zoo.weights import get_weights
    >>> weight_set = get_weights("se_resnet50", "imagenet_lt")
    >>> weight_set.top1, weight_set.options["gate"], weight_set.preprocessing.image_size
    (57.9, 'apa', (224, 224))
    """

    model: str
    name: str
    url: str
    classes: int
    preprocessing: images.Preprocessing
    top1: float
    source: str
    class_order: str
    repository: str
    options: Mapping = dataclasses.field(default_factory=dict)
    assumed: tuple[str, ...] = ()
    correction: str | None = None
    class_counts: tuple[int, ...] | None = None
    sha256: str | None = None
    notes: str = ""

    @property
    def path(self):
        """The path of the file in the cache."""
        return cache_folder() / "weights" / f"{self.model}-{self.name}.pth"

    def preprocess_input(self, images, data_format=None):
        """Normalise resized and cropped pixels from 0 to 255 as in the training of the network.

        It takes the same input as `preprocess_input` of keras.applications: a batch or one image, with the channels
        where `data_format` says. `None` takes `keras.config.image_data_format()`. The errors are as in
        `zoo.Preprocessing`.
        """
        return self.preprocessing(images, data_format)

    def download(self):
        """Fetch the file if it is not in the cache, and return its path; errors as in `zoo.download.download`."""
        return download(self.url, self.path, self.sha256)


def _authors(model, name, file, top1, source, **fields):
    """Adaptive Parametric Activation: APA* gates and AGLU."""
    long_tailed = name == "imagenet_lt"
    gates = {"gate": "apa", "spatial_gate": "apa"} if model.startswith("cb_") else {"gate": "apa"}
    return WeightSet(
        model=model,
        name=name,
        url=google_drive(file),
        classes=1000,
        options={"activation": "aglu", **gates, "classifier": "cosine" if long_tailed else "linear"},
        preprocessing=images.imagenet(224, 256) if long_tailed else images.imagenet(224, 232),
        top1=top1,
        source=f"Adaptive Parametric Activation (arXiv 2407.08567), Table {source}",
        # The order of classes with equally many images hangs on NumPy's unstable sort.
        class_order="falling number of training images" if long_tailed else "ImageNet's (synsets sorted)",
        correction="raw" if long_tailed else None,
        class_counts=IMAGENET_LT_COUNTS if long_tailed else None,
        repository="kostas1515/AGLU",
        **fields,
    )


# Unlike the authors of APA, they keep the labels that their lists of images have.
_BALMS_ORDERS = {
    "cifar10": "CIFAR's",
    "cifar100": "CIFAR's",
    "imagenet": "labels of the lists ImageNet_LT_train.txt and ImageNet_LT_test.txt",
    "places": "Places'",
}


def _balms(model, name, url, top1, **fields):
    """Balanced Meta-Softmax: plain networks with a linear head, labels as the lists have them."""
    small = model == "resnet32"
    return WeightSet(
        model=model,
        name=name,
        url=url if url.startswith("http") else google_drive(url),
        options={"activation": "relu", "classifier": "linear"},
        preprocessing=images.cifar() if small else images.imagenet(224, 256),
        top1=top1,
        source="README of jiawei-ren/BalancedMetaSoftmax-Classification",
        class_order=_BALMS_ORDERS[name.partition("_")[0]],
        repository="jiawei-ren/BalancedMetaSoftmax-Classification",
        **fields,
    )


_NO_COMMAND = "The authors give no command for this network: the head is assumed."
_RESNET10 = {
    "notes": "The layout is assumed: torchvision's, with one basic block a stage. Labels are those of the ImageNet-LT "
    "lists, not ranks by number of images as in the networks with APA."
}
_SMALL = {"notes": "Imbalance 200. The best epoch was chosen on the test images."}

WEIGHTS = (
    _authors("se_resnet50", "imagenet_lt", "1xl6yPojp1rCQ-XOaW36SQoCa53Yiz5aK", 57.9, "2"),
    _authors(
        "se_resnext50_32x4d",
        "imagenet_lt",
        "1tCy9g1pt-HguKHBDqJldoCAa979kivwk",
        59.1,
        "2",
        assumed=("classifier",),
        notes=_NO_COMMAND,
    ),
    _authors(
        "se_resnet50",
        "imagenet",
        "1MwMpCXKfKHoq8ZUBlZR_2rtzN9GDE_TE",
        78.7,
        "6d",
        assumed=("classifier",),
        notes=_NO_COMMAND,
    ),
    _authors(
        "cb_resnet50",
        "imagenet",
        "1FGs8bIvjYcMa8fqNcyjxQ-GvC8QIrBLU",
        78.9,
        "6c",
        assumed=("classifier", "spatial_gate"),
        notes=f"{_NO_COMMAND} So is the spatial gate; if the file has none, give spatial_gate='sigmoid'.",
    ),
    _authors(
        "se_resnet101",
        "imagenet",
        "1sPrONipvrumno8kZ6EwRfcc1v6sWA7cg",
        80.3,
        "6d",
        assumed=("classifier",),
        notes=_NO_COMMAND,
    ),
    _authors("se_resnet152", "imagenet", "1wrcme0S6rt7KKgZA_1HHm3uf2m0T9UwB", 80.8, "6d"),
    _balms("resnet32", "cifar10_lt", "1laY5ce0-sw3HrHBQZ2Gseo9acbG2CavK", 74.0, classes=10, **_SMALL),
    _balms("resnet32", "cifar10_lt_balanced_softmax", "17AsyPy5mXavxXJvLiGzWIjgIyoukFSRQ", 79.8, classes=10, **_SMALL),
    _balms("resnet32", "cifar10_lt_decoupled", "1VztEqUdA_RCzg0oXk3rebv5EPAF5B6es", 81.8, classes=10, **_SMALL),
    _balms("resnet32", "cifar10_lt_balms", "1CK0mDg8tpPAxnh5ZEx4-6eX3sEdQoXGi", 82.2, classes=10, **_SMALL),
    _balms(
        "resnet32",
        "cifar100_lt",
        "https://www.dropbox.com/s/63q8cf7i62aveo6/model_final.pth?dl=1",
        41.2,
        classes=100,
        **_SMALL,
    ),
    _balms(
        "resnet32", "cifar100_lt_balanced_softmax", "1Dyutyp7InoaQdePJXZDSrvhSts7y2Z6-", 46.7, classes=100, **_SMALL
    ),
    _balms("resnet32", "cifar100_lt_decoupled", "144mXXEP58hWS1y9RlNo0ThbpdThxT191", 47.2, classes=100, **_SMALL),
    _balms("resnet32", "cifar100_lt_balms", "1Qc4-F1qFu6ebVEeZSJMdnE_DnMh_siit", 48.0, classes=100, **_SMALL),
    _balms("resnet10", "imagenet_lt", "1QWoj418KRhW5JhnTk-Mu_a5ram0V9X9V", 34.8, classes=1000, **_RESNET10),
    _balms("resnet10", "imagenet_lt_balms", "1v6G1xGkku5px4tombqtR8xJI-Qj1F0dI", 41.6, classes=1000, **_RESNET10),
    _balms(
        "resnet152",
        "places_lt",
        "https://dl.fbaipublicfiles.com/classifier-balancing/Places_LT/models/resnet152_uniform.pth",
        30.2,
        classes=365,
        notes="Of facebookresearch/classifier-balancing.",
    ),
    _balms("resnet152", "places_lt_balms", "1hPW6CrXmBpvinU1rhmp2TpnkUNl9NUf0", 38.3, classes=365),
)
_BY_NAME = {(weight_set.model, weight_set.name): weight_set for weight_set in WEIGHTS}


def list_weights(pattern="*"):
    """Names of the published weights, `model/weights`, those that match a shell pattern.

    Args:
        pattern: A pattern with the wildcards `*`, `?` and `[...]`. The default matches all.

    Returns:
        A list of names.

    >>> from zoo.weights import list_weights
    >>> list_weights("se_*/imagenet_lt")
    ['se_resnet50/imagenet_lt', 'se_resnext50_32x4d/imagenet_lt']
    """
    return [name for name in map("/".join, _BY_NAME) if fnmatch.fnmatchcase(name, pattern)]


def get_weights(model, weights):
    """The facts about published weights, as a `WeightSet`.

    Args:
        model: The name of a network.
        weights: The name of weights of that network, such as `"imagenet_lt"`.

    Returns:
        A `WeightSet`.

    Raises:
        ValueError: If a name does not exist. The message lists the nearest ones and those of other networks.

    >>> from zoo.weights import get_weights
    >>> get_weights("se_resnet152", "imagenet").top1
    80.8
    """
    if (model, weights) in _BY_NAME:
        return _BY_NAME[model, weights]
    own = list_weights(f"{model}/*")
    near = difflib.get_close_matches(f"{model}/{weights}", list_weights(), n=3)
    parts = [
        f"Published weights of {model}: {', '.join(own)}." if own else f"There are no published weights of {model}.",
        f"Nearest: {', '.join(near)}." if near else "",
    ]
    raise ValueError(
        f"weights must be published ones of {model} or a path that ends in {', '.join(SUFFIXES)}; given: {weights!r}. "
        + " ".join(part for part in parts if part)
    )


def create_with_weights(name, build, weights, options):
    """`zoo.create_model` with `weights`: a model that has all of them, or an error.

    Args:
        name: Name of the network.
        build: Makes the network from its options.
        weights: Name of published weights of `name`, or a path that ends in one of `SUFFIXES`.
        options: The options that the caller gave.

    Warns: UserWarning: If the classifier is new, because the weights have another number of classes or none.

    Raises:
        ValueError: For unknown weights, an option that contradicts them, or a file that does not fit.
        zoo.download.DownloadError: If the file cannot be fetched.
    """
    if isinstance(weights, os.PathLike) or has_suffix(weights) or os.sep in str(weights):
        return _create_from_file(name, build, open_weights(weights), options)
    weight_set = get_weights(name, weights)
    options = _merge(weight_set, options)
    with_top = options.get("include_top", True) and not options.get("pyramid", False)
    new_head = with_top and options["classes"] != weight_set.classes
    correct = with_top and not new_head and weight_set.correction is not None
    model = build(**options)
    path = weight_set.download()  # after a wrong option has been found
    load_authors(model, path, skip_classifier=new_head or not has_classifier(model))
    if correct:
        model = _corrected(
            model, PriorCorrection(weight_set.class_counts, weight_set.correction), options.get("classifier_activation")
        )
    model.preprocessing = _fitted(weight_set.preprocessing, model)
    if new_head:
        _warn_of_new_classifier(name, options["classes"], weight_set.name, weight_set.classes)
    return model


def _create_from_file(name, build, file, options):
    """A model with the weights of a file, and with what a `.keras` file says beside them.

    Names of the classes and the prior correction belong to the classifier, and come along with it.
    """
    model = build(**options)
    if (
        options.get("classes") is None
        and has_classifier(model)
        and not isinstance(options.get("classifier"), keras.layers.Layer)
    ):
        theirs = file.classes(model)
        if theirs and theirs != model.get_layer("classifier").output.shape[-1]:
            options = {**options, "classes": theirs}
            model = build(**options)
    theirs = load_weights(model, file, lambda **changes: build(**{**options, **changes}))
    known = file.model
    if theirs is not None:
        _warn_of_new_classifier(name, model.get_layer("classifier").output.shape[-1], file.path.name, theirs)
    elif known is not None and has_classifier(model):
        correction = next((layer for layer in known.layers if isinstance(layer, PriorCorrection)), None)
        if correction is not None:
            model = _corrected(model, correction, options.get("classifier_activation"))
        model.class_names = getattr(known, "class_names", None)
    if getattr(known, "preprocessing", None) is not None:
        model.preprocessing = _fitted(known.preprocessing, model)
    return model


def _warn_of_new_classifier(name, classes, source, theirs):
    """Say in one line that the classifier has its start values; `theirs`: classes of the file, 0 if it has none."""
    warnings.warn(
        f"{name}: a new classifier for {classes} classes, since {source!r} has {theirs or 'none'}; all other weights "
        "are loaded.",
        stacklevel=4,
    )


def _merge(weight_set, options):
    """The caller's options over those of the weights; a contradiction is an error."""
    own = {"classes": weight_set.classes, **weight_set.options}
    given = {key: value for key, value in options.items() if value is not None or key not in own}
    new_head = not options.get("include_top", True) or options.get("classes") not in (None, weight_set.classes)
    for key, value in weight_set.options.items():
        chosen = given.get(key, value)
        free = key in weight_set.assumed or _is_such_a_layer(chosen, value)
        if chosen != value and not free and not (key == "classifier" and new_head):
            raise ValueError(
                f"{key} must be {value!r} for the weights {weight_set.name!r} of {weight_set.model}; given: "
                f"{chosen!r}. "
                f"Leave out {key}, or leave out weights."
            )
    return {**own, **given}


_LAYERS = {
    "aglu": AGLU,
    "apa": APA,
    "relu": keras.layers.ReLU,
    "sigmoid": Sigmoid,
    "linear": keras.layers.Dense,
    "cosine": CosineDense,
}


def _is_such_a_layer(chosen, name):
    """Whether `chosen` is a layer of the kind that an option calls `name`, with settings of the caller's own."""
    if isinstance(chosen, keras.layers.Activation):
        return keras.activations.serialize(chosen.activation) == name
    return isinstance(chosen, _LAYERS[name])


def _corrected(model, correction, activation):
    """The model with a prior correction like this one between its logits and the activation."""
    config = {**correction.get_config(), "dtype": "float32", "name": "prior_correction"}
    x = PriorCorrection.from_config(config)(model.get_layer("classifier").output)
    if activation is not None:
        x = keras.layers.Activation(activation, name="classifier_activation", dtype="float32")(x)
    return Classifier(model.input, x, name=model.name, batches_tracked=model.batches_tracked)


def _fitted(preprocessing, model):
    """The published preprocessing, with the image size that the caller chose in place of the published one."""
    shape = model.input_shape[1:]
    sides = tuple(shape[:2] if shape[-1] == preprocessing.channels else shape[1:])
    if None in sides or sides == preprocessing.image_size:
        return preprocessing
    return preprocessing.at_size(sides)
