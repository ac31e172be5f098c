"""Where the recorded reference arrays are."""

import json
import pathlib

import numpy as np

DATA = pathlib.Path(__file__).parent / "data"


def load(name):
    """Arrays of `tests/data/NAME` as a dict (read at once: an open .npz decompresses an array at every access)."""
    with np.load(DATA / name) as arrays:
        return {key: arrays[key] for key in arrays.files}


def load_json(name):
    """The content of a JSON file of `tests/data`."""
    return json.loads((DATA / name).read_text())
