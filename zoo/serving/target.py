"""Where an exported model is to run: the formats, the packages that write them, the name that a server knows."""

import importlib.util

import keras

from keras_apa._text import as_text

FORMATS = {"tf_saved_model": None, "onnx": "model.onnx", "litert": "model.tflite"}
# Packages by format and the backend that writes it.
PACKAGES = {
    ("tf_saved_model", "tensorflow"): ("tensorflow", "tensorflow_serving"),
    ("litert", "tensorflow"): ("tensorflow",),
    ("onnx", "tensorflow"): ("tensorflow", "tf2onnx", "onnx"),
    ("onnx", "torch"): ("torch", "onnx", "onnxscript"),
}


def check_installed(format):
    """The backend that writes `format`: this one if it can, else one whose packages are installed."""
    running = keras.config.backend()
    able = {backend: packages for (name, backend), packages in PACKAGES.items() if name == format}
    backends = [running] if running in able else list(able)
    missing = {name: [package for package in able[name] if not is_installed(package)] for name in backends}
    for backend in backends:
        if not missing[backend]:
            return backend
    names = ", ".join(name.replace("tensorflow_serving", "tensorflow-serving-api") for name in missing[backends[0]])
    raise ImportError(
        f'format={format!r} needs packages that are not installed: {names}; pip install "keras-apa[export]"'
    )


def is_installed(package):
    """Whether Python finds a package, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # imported without a specification
        return True


def model_name(folder, format):
    """The last part of `folder` that is no version."""
    import pathlib

    path = pathlib.Path(folder).expanduser().absolute()
    if path.suffix in (".onnx", ".tflite", ".keras"):
        raise ValueError(
            f"folder must name a folder, in which VERSION/{FORMATS[format] or ''} is made; given: {str(folder)!r}."
        )
    return as_text(path.parent.name if path.name.isdecimal() else path.name)
