"""Export on the backend that writes a format: here, or in a fresh process, where the model goes as a `.keras` file."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import keras
import numpy as np

from keras_apa._text import check_utf8
from zoo.serving.folder import check_folder, write_version
from zoo.serving.target import check_installed

_PROGRAM = "import sys; from zoo.export import main; sys.exit(main(sys.argv[1]))"


def write_on_able_backend(write, model, folder, settings, representative_images=None):
    """Write a version of `folder` with `write(model, path, settings, representative_images)`; its path.

    Where this process's backend does not write `settings.format`, a fresh process does, through `zoo.export.write`.
    Errors as `zoo.export`.
    """
    backend = check_installed(settings.format)
    check_folder(folder)
    if settings.format == "tf_saved_model":
        check_utf8(folder, "folder")

    def write_into(path):
        if backend == keras.config.backend():
            write(model, path, settings, representative_images)
        else:
            write_in_fresh_process(backend, model, path, settings, representative_images)

    return write_version(folder, write_into)


def write_in_fresh_process(backend, model, folder, settings, representative_images=None):
    """`zoo.export.write` on another backend.

    Raises:
        ValueError: If a layer's class is defined where a fresh process cannot import it, or as `zoo.export`.
        RuntimeError: If the process fails; the message ends with what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="keras-apa-export-") as temporary:
        job = pathlib.Path(temporary)
        keras.saving.save_model(model, job / "model.keras")
        if representative_images is not None:
            np.save(job / "images.npy", representative_images)
        description = {
            "settings": settings.get_config(),
            "folder": str(folder),
            "modules": _modules(job / "model.keras"),
        }
        (job / "job.json").write_text(json.dumps(description), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(job)],
            env=_environment(backend),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        if (job / "error.txt").exists():
            message = (job / "error.txt").read_text(encoding="utf-8", errors="surrogatepass")
            raise ValueError(message)
        if result.returncode:
            raise RuntimeError(f"The export on the {backend} backend failed:\n{result.stdout[-4000:]}")


def _environment(backend):
    """This process's, with its import path, on another backend and on the processor only."""
    path = os.pathsep.join([os.path.abspath(entry) for entry in sys.path])
    return {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # whatever the locale: what it prints is read as UTF-8
        "PYTHONPATH": path,
        # The accelerator's memory may be taken by the process that waits; tracing needs none.
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def _modules(path):
    """Modules that define the registered classes and functions of a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    names = set()
    for name in sorted(_registered_names(config)):
        registered = keras.saving.get_registered_object(name)
        module = getattr(registered, "__module__", "keras")
        if module == "__main__":
            raise ValueError(
                f"{registered.__name__} must be in a module, since the export needs a fresh process; given: one "
                "that is defined in the program itself. Put it into a module and import it from there."
            )
        if not module.startswith("keras."):
            names.add(module)
    return sorted(names - {"keras"})


def _registered_names(config):
    if isinstance(config, dict):
        if isinstance(config.get("registered_name"), str):
            yield config["registered_name"]
        config = [value for key, value in config.items() if key != "compile_config"]
    if isinstance(config, list):
        for value in config:
            yield from _registered_names(value)
