"""The words that an option of a command accepts, as types; the options of a recipe are in `training/config/`.

They import nothing, so that `--help` need not wait for Keras. A test checks that the code accepts the same words.
"""

from __future__ import annotations

from typing import Literal

Task = Literal["classification", "detection"]
ExportFormat = Literal["tf_saved_model", "onnx", "litert"]
ExportActivation = Literal["softmax", "sigmoid", "gumbel"]
Quantization = Literal["float16", "int8"]
PreprocessingName = Literal["imagenet", "cifar", "none"]
ListKind = Literal["models", "weights", "presets", "recipes", "losses", "layers", "metrics", "backends"]
