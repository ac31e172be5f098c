"""Networks for long-tailed recognition: builders by name, and checkpoints to and from PyTorch."""

from zoo import registry
from zoo.checkpoints import load_torch_checkpoint, to_torch_state_dict
from zoo.classifier import Classifier
from zoo.detect import detect_architecture
from zoo.detection import FasterRCNN, MaskRCNN
from zoo.download import DownloadError
from zoo.export import export
from zoo.flops import count_flops
from zoo.preprocessing import Preprocessing
from zoo.presets import from_preset, list_presets, preset_config, save_preset
from zoo.registry import create_model, list_models
from zoo.weights import get_weights, list_weights

globals().update(registry.FUNCTIONS)

__all__ = [
    "Classifier",
    "DownloadError",
    "FasterRCNN",
    "MaskRCNN",
    "Preprocessing",
    "count_flops",
    "create_model",
    "detect_architecture",
    "export",
    "from_preset",
    "get_weights",
    "list_models",
    "list_presets",
    "list_weights",
    "load_torch_checkpoint",
    "preset_config",
    "save_preset",
    "to_torch_state_dict",
    *registry.FUNCTIONS,
]
