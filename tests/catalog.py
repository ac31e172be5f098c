"""Every registered object of the library with an input for it, small enough to be made and trained everywhere."""

import dataclasses

import numpy as np

import zoo
from keras_apa import layers, losses, metrics, ops
from zoo.blocks import PaddedMaxPooling, PadShortcut
from zoo.resnet import IMAGENET_RESNETS, build_resnet

IMAGE, VECTOR = (6, 5, 8), (8,)
COUNTS = [60, 30, 15, 5]
LVIS = {"image_counts": COUNTS, "num_images": 100, "frequency_threshold": 0.2}

# Everything that the ImageNet networks have, in two blocks.
TINY_RESNEXT = dataclasses.replace(
    IMAGENET_RESNETS["cb_resnext50_32x4d"], depths=(1, 1), filters=(8, 16), groups=4, width_per_group=32
)

# name -> (constructor, shape of one input)
LAYERS = {
    "apa": (lambda: layers.APA(), VECTOR),
    "apa_per_channel": (lambda: layers.APA(per_channel=True), IMAGE),
    "aglu": (lambda: layers.AGLU(), IMAGE),
    "aglu_paper_per_channel": (lambda: layers.AGLU(per_channel=True, lambda_gradient="paper"), VECTOR),
    "sigmoid": (lambda: layers.Sigmoid(learn_temperature=True), VECTOR),
    "gumbel": (lambda: layers.Gumbel(learn_temperature=True), VECTOR),
    "squeeze_excite": (lambda: layers.SqueezeExcite(4), IMAGE),
    "squeeze_excite_apa": (lambda: layers.SqueezeExcite(4, gate="apa"), IMAGE),
    "squeeze_excite_own_gate": (lambda: layers.SqueezeExcite(4, gate=layers.APA(per_channel=True)), IMAGE),
    "channel_attention": (lambda: layers.ChannelAttention(4, gate="gumbel_temperature"), IMAGE),
    "spatial_attention": (lambda: layers.SpatialAttention(3, gate="apa"), IMAGE),
    "cbam": (lambda: layers.CBAM(4, gate="apa", spatial_gate="sigmoid_temperature"), IMAGE),
    "cosine_dense": (lambda: layers.CosineDense(3, learn_scale=True), VECTOR),
    "normalized_dense": (lambda: layers.NormalizedDense(3, temperature=20.0), VECTOR),
    "normalized_dense_learned": (lambda: layers.NormalizedDense(3, learn_temperature=True), VECTOR),
    "wrapped_cauchy_dense": (lambda: layers.WrappedCauchyDense(3), VECTOR),
    "normalized_conv": (lambda: layers.NormalizedConv2D(3, 3, padding="same", learn_temperature=True), IMAGE),
    "prior_correction": (lambda: layers.PriorCorrection([40, 30, 20, 10, 9, 8, 7, 6], "rel", tau=0.5), VECTOR),
    "batch_normalization": (lambda: layers.UnbiasedBatchNormalization(), IMAGE),
    "batch_normalization_frozen": (lambda: layers.UnbiasedBatchNormalization(frozen=True), IMAGE),
    "pad_shortcut": (lambda: PadShortcut(11, 2), IMAGE),
    "padded_max_pooling": (lambda: PaddedMaxPooling(), IMAGE),
    "operation": (lambda: ops.ElementwiseOperation("aglu", {"lambda_gradient": "exact"}), VECTOR),
}

# name -> constructor; logits have four columns, six for the objectness form of Seesaw
LOSSES = {
    "balanced_softmax": lambda: losses.BalancedSoftmaxCrossentropy(COUNTS, tau=0.9, label_smoothing=0.1),
    "balanced_sigmoid": lambda: losses.BalancedSigmoidCrossentropy(COUNTS),
    "gumbel_crossentropy": lambda: losses.GumbelCrossentropy(),
    "drop": lambda: losses.DropLoss(**LVIS, seed=1),
    "drop_gumbel": lambda: losses.DropLoss(**LVIS, activation="gumbel", seed=1),
    "gol": lambda: losses.GumbelOptimizedLoss(**LVIS, seed=1),
    "equalization_sigmoid": lambda: losses.EqualizationLoss(**LVIS),
    "equalization_gumbel": lambda: losses.EqualizationLoss(**LVIS, activation="gumbel"),
    "equalization_softmax": lambda: losses.EqualizationLoss(**LVIS, activation="softmax", seed=1),
    "seesaw": lambda: losses.SeesawLoss(4),
    "federated": lambda: losses.FederatedLoss(COUNTS, num_sampled_classes=2, seed=1),
    "class_balanced_softmax": lambda: losses.ClassBalancedCrossentropy(COUNTS, beta=0.99),
    "class_balanced_sigmoid": lambda: losses.ClassBalancedCrossentropy(COUNTS, beta=0.99, base="sigmoid"),
    "class_balanced_focal": lambda: losses.ClassBalancedCrossentropy(COUNTS, beta=0.99, base="focal"),
    "ldam": lambda: losses.LDAM(COUNTS, scale=10.0),
}

METRICS = {
    "shot_accuracy": lambda: metrics.ShotAccuracy(COUNTS, many_threshold=40, few_threshold=10),
    "shot_accuracy_few": lambda: metrics.ShotAccuracy(COUNTS, many_threshold=40, few_threshold=10, group="few"),
    "mean_class_accuracy": lambda: metrics.MeanClassAccuracy(4),
}

MODELS = {
    "baseline": lambda: zoo.create_model("se_resnet8", classes=4, input_shape=(8, 8, 1)),
    "full": lambda: zoo.create_model(
        "se_resnet8", classes=4, input_shape=(8, 8, 1), activation="aglu", gate="apa", classifier="cosine"
    ),
    "cbam": lambda: zoo.create_model(
        "cb_resnet8",
        classes=4,
        input_shape=(8, 8, 1),
        activation=layers.AGLU(per_channel=True, lambda_gradient="paper"),
        gate="apa",
        spatial_gate="gumbel",
        classifier="wrapped_cauchy",
    ),
    "bottleneck": lambda: build_resnet(
        "tiny_resnext", TINY_RESNEXT, classes=4, input_shape=(8, 8, 1), activation="aglu", gate="apa"
    ),
    "spatial": lambda: zoo.create_model(
        "sp_resnet8", classes=4, input_shape=(8, 8, 1), spatial_gate="apa", classifier="normalized"
    ),
}


def example(shape, batch=3, seed=0):
    """A float32 batch of standard normal numbers."""
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype("float32")


def labels(batch=8, classes=4, seed=0):
    """Integer labels that name every class."""
    return np.random.default_rng(seed).permutation(np.arange(batch) % classes).astype("int32")
