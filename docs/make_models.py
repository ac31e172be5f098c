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

<!-- Written by `python docs/make_models.py`: change the script, not this page. -->

You can build any of these networks with `zoo.create_model(name, ...)` or `zoo.NAME(...)`. `keras-apa list models`
prints the names.

```python
import numpy as np
from keras_apa import zoo

model = zoo.create_model("se_resnet8", classes=5, activation="aglu", gate="apa")
backbone = zoo.se_resnet50(activation="aglu", gate="apa", pyramid=True)  # returns the outputs of the four stages

digits = zoo.from_preset("se_resnet_digits100_lt")  # weights inside the package: the second network of the demo
pixels = np.random.randint(0, 256, (1, 16, 16, 1))
logits = digits.predict(digits.preprocessing(pixels))
print(digits.class_names[logits.argmax()])
```

Every network takes the options `classes`, `activation`, `classifier`, `include_top`, `pooling`, `pyramid`,
`input_shape`, `classifier_activation`, `stem`, `frozen_batch_norm`, `data_format`, `name` and `input_tensor`.
Networks that begin with `se_` or `cb_` also take `gate`, `gate_normalization` and `gate_dropout`. Those that begin
with `cb_` or `sp_` take `spatial_gate`. The docstring of `zoo.create_model` explains each option.

If one model contains the same network twice, give each its own name:
`keras.layers.average([zoo.resnet8(name="left")(images), zoo.resnet8(name="right")(images)])`.

With `data_format="channels_first"`, TensorFlow needs a GPU, or a CPU with the environment variable
`TF_ENABLE_ONEDNN_OPTS=1` (the default on some processors).

## Networks

* **parameters** counts the trainable parameters of the network with ReLU and, if it has gates, sigmoid gates. **with
  AGLU (and APA)** counts them with AGLU and, if it has gates, APA gates. In this table, networks for large images
  have 1000 classes, and those for small images have 100.
* **FLOPs** are the multiply-adds of convolutions and dense layers for one image of the stated size, as torchvision
  counts them (`zoo.count_flops`). AGLU and APA do not change this number.

| name | gate in each block | image | parameters | with AGLU (and APA) | FLOPs |
| --- | --- | --- | --- | --- | --- |
"""
GATES = {None: "", "se": "Squeeze-and-Excitation", "cb": "CBAM", "sp": "spatial"}

WEIGHTS = """
## Published weights

`zoo.create_model("se_resnet50", weights="imagenet_lt")` downloads the file that the authors published, checks it,
converts it and caches it. It also sets everything that belongs to the weights:

* the options of the network;
* its preprocessing, in `model.preprocessing`;
* the prior correction, if the authors used one for the published number. It adds a fixed number for each class to its
  logit.

If you pass another number of `classes`, the classifier gets new weights and a warning tells you so. The same happens
if you load a file of your own (`weights=PATH`). You need the extra `zoo`: `pip install "keras-apa[zoo]"`.

The cache is the folder in the environment variable `KERAS_APA_CACHE`. If this is not set, it is `KERAS_HOME/keras-apa`,
or else `~/.keras/keras-apa`. With `KERAS_APA_OFFLINE=1`, nothing is downloaded. If a file is missing, the error tells
you the link and where to put the file.

Before you use these weights, please note:

* ImageNet-LT weights number their classes by the count of training images, the largest class first, unless the notes
  say otherwise. Relabel your test images in the same way.
* The files belong to their authors. The licence of keras-apa does not cover them.
* We could not download them. The code that loads them is tested with files of the same layout and a local server. The
  top-1 numbers are the authors'; we have not measured any of them.

| model | `weights=` | top-1 (published) | options | images | corrected | source | notes |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

MORE = """
## Checkpoints of PyTorch

`keras-apa convert checkpoint.pth model.keras` infers the architecture from the checkpoint.
`keras-apa convert model.keras checkpoint.pth` writes a checkpoint from a model. In Python:

```python
state = zoo.to_torch_state_dict(digits)  # keys and layout of the authors' PyTorch networks
print(zoo.detect_architecture(state))
zoo.load_torch_checkpoint(digits, state)
```

`.safetensors` files need the extra `zoo`.

## Presets

A preset is a folder with the configuration, the weights and a model card. `zoo.save_preset(model, "folder")` writes
one and `zoo.from_preset("folder")` reads it. With the extra `zoo`, `zoo.from_preset("hf://USER/NAME")` loads one from
the Hugging Face Hub. `zoo.list_presets()` names the two presets inside the package.

## Predict and serve

`keras-apa predict model.keras photos` prints the most probable classes of image files, or the objects that a detector
finds in them. To write a model for a server or a phone, see [the page on serving](serving.md).
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
    return HEAD + "".join(rows) + WEIGHTS + "".join(map(weights_row, list_weights())) + MORE


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
