"""Writes docs/models.md: every network of the zoo, counted, and every set of published weights.

python docs/make_models.py            # some minutes: each network is built once
python docs/make_models.py --check    # exit code 1 if the page is not what this would write
"""

import math
import os
import pathlib
import sys

import zoo
from zoo.registry import ARCHITECTURES
from zoo.weights import get_weights, list_weights

PAGE = pathlib.Path(__file__).parent / "models.md"
ADAPTIVE = {
    None: {"activation": "aglu"},
    "se": {"activation": "aglu", "gate": "apa"},
    "cb": {"activation": "aglu", "gate": "apa", "spatial_gate": "apa"},
    "sp": {"activation": "aglu", "spatial_gate": "apa"},
}

HEAD = """# Models

Made by `python docs/make_models.py` from the registry of `zoo`. Build a network with `zoo.create_model(name, ...)` or
`zoo.NAME(...)`; `keras-apa list models` lists the names.

* **Parameters** are the trainable ones, with 1000 classes (100 for the networks for small images): first of the
  plain network (ReLU, sigmoid gates), then with AGLU and, where there are gates, APA gates.
* **FLOPs** are multiply-adds of convolutions and dense layers for one image at the stated size (`zoo.count_flops`),
  as torchvision counts them. AGLU and APA change none of them.

Options of every network: `classes`, `activation`, `classifier`, `include_top`, `pooling`, `pyramid`, `input_shape`,
`classifier_activation`, `stem`, `frozen_batch_norm`, `data_format`, `name`, `input_tensor`. `se_` and `cb_` networks
take `gate`, `gate_normalization` and `gate_dropout` too, `cb_` and `sp_` networks `spatial_gate`. `zoo.create_model`
says what each means. Two networks of a kind in one model need two names:
`keras.layers.average([zoo.resnet8(name="left")(images), zoo.resnet8(name="right")(images)])`. With
`data_format="channels_first"`, TensorFlow runs a network on a GPU, or on a CPU with `TF_ENABLE_ONEDNN_OPTS=1` (its
default on some processors only).

## Networks

| name | gate in each block | image | parameters | with AGLU (and APA) | FLOPs |
| --- | --- | --- | --- | --- | --- |
"""
GATES = {None: "", "se": "Squeeze-and-Excitation", "cb": "CBAM", "sp": "spatial"}

WEIGHTS = """
## Published weights

`zoo.create_model(model, weights=NAME)` fetches the authors' file, converts it, and carries on with its options and its
preprocessing (`model.preprocessing`). With other `classes` the classifier is new, and a warning says so; the same holds
for `weights=PATH`. The numbers are the authors'; the files could not be fetched where this page was
made, so none of them has been measured with this library. Their licence is their authors'.

| model | `weights=` | top-1 (published) | options | images | corrected | source | notes |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def row(name):
    """A line of the table of networks."""
    architecture = ARCHITECTURES[name]
    plain = zoo.create_model(name)
    adaptive = zoo.create_model(name, **ADAPTIVE[architecture.attention])
    height, width, _ = plain.input_shape[1:]
    flops = zoo.count_flops(plain)
    amount = f"{flops / 1e9:.2f} G" if flops >= 1e9 else f"{flops / 1e6:.1f} M"
    return (
        f"| `{name}` | {GATES[architecture.attention]} | {height}x{width} | {parameters(plain):,} | "
        f"{parameters(adaptive):,} | {amount} |\n"
    )


def parameters(model):
    """Number of trainable parameters."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def weights_row(name):
    """A line of the table of published weights."""
    weight_set = get_weights(*name.split("/"))
    options = ", ".join(f"{key}={value!r}" for key, value in weight_set.options.items())
    images = weight_set.preprocessing
    size = f"{images.image_size[0]}x{images.image_size[1]}"
    if images.resize_size:
        size += f" of {images.resize_size}"
    correction = f"`PriorCorrection`, {weight_set.correction}" if weight_set.correction else ""
    return (
        f"| `{weight_set.model}` | `{weight_set.name}` | {weight_set.top1} | `{options}` | {size} | {correction} | "
        f"{weight_set.source}; github.com/{weight_set.repository} | {weight_set.notes} |\n"
    )


def page():
    """The whole page."""
    rows = []
    for name in zoo.list_models():
        rows.append(row(name))
        print(rows[-1], end="", flush=True)
    return HEAD + "".join(rows) + WEIGHTS + "".join(map(weights_row, list_weights()))


def main(arguments):
    """Write the page, or compare it."""
    text = page()
    if arguments == ["--check"]:
        return int(PAGE.read_text(encoding="utf-8") != text)
    temporary = PAGE.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, PAGE)
    print(f"Wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
