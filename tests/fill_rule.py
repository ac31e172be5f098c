"""Deterministic weight fill used by every fixture in models/.

numpy only, key-only: the value of a tensor depends on nothing but its
(PyTorch) state_dict key and its (PyTorch-layout) shape.

    a = default_rng(crc32(key)).standard_normal(shape).astype(float32)

| key pattern (first match wins)                              | value             |
|-------------------------------------------------------------|-------------------|
| *.num_batches_tracked                                       | 0 (int64)         |
| *.running_var                                               | 0.5 + |a|         |
| *.running_mean                                              | 0.1 a             |
| *lambda_param                                               | 0.1 + 0.5 |a|     |
| *.unact.kappa_param, *.uniact.kappa_param   (APA gates)     | -0.5 + 0.1 a      |
| any other *kappa_param (unirect, unirect1..3, relu = AGLU)  | 1 + 0.1 a         |
| linear.scale / fc.scale             (lr_cosine classifier)  | 5 + 0.1 a         |
| *.bias                                                      | 0.1 a             |
| layer<i>.<j>.bn2.weight, layer<i>.<j>.bn3.weight            | 0.5 (1 + 0.1 a)   |
| bn1.weight                          (the stem norm only)    | 3 (1 + 0.1 a)     |
| any other 1-D *.weight (BN and LN scales)                   | 1 + 0.1 a         |
| any other *.weight with >= 2 dims                           | a sqrt(2/fan_in)  |

The 3x stem keeps the AGLU networks from fading to zero with depth (AGLU(z) is
about 0.45 z near 0); the 0.5x keeps the ReLU networks from growing.

fan_in = prod(shape[1:]) of the PyTorch tensor (also for NormedLinear, whose
weight is (in, out): the scale is irrelevant there because of the column norm).
"""

import math
import re
import zlib

import numpy as np

_LAST_NORM = re.compile(r"^layer\d+\.\d+\.bn[23]\.weight$")
_GATE_KAPPA = re.compile(r"(^|\.)uni?act\.kappa_param$")


def kind(key, ndim):
    """Name of the rule that applies to `key`."""
    if key.endswith("num_batches_tracked"):
        return "num_batches_tracked"
    if key.endswith("running_var"):
        return "running_var"
    if key.endswith("running_mean"):
        return "running_mean"
    if key.endswith("lambda_param"):
        return "lambda"
    if key.endswith("kappa_param"):
        return "kappa_gate" if _GATE_KAPPA.search(key) else "kappa_aglu"
    if key.endswith(".scale"):
        return "scale"
    if key.endswith(".bias"):
        return "bias"
    if key.endswith(".weight") and ndim == 1:
        if key == "bn1.weight":
            return "norm_weight_stem"
        return "norm_weight_last" if _LAST_NORM.match(key) else "norm_weight"
    if key.endswith(".weight") and ndim >= 2:
        return "kernel"
    raise KeyError(f"no rule for {key!r} (ndim {ndim})")


def fill(key, shape):
    """The array for a state_dict entry; float32 (int64 for the BN counter)."""
    shape = tuple(int(s) for s in shape)
    k = kind(key, len(shape))
    if k == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    a = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    a = a.astype(np.float32)  # every constant below is a Python float -> stays float32
    if k == "running_var":
        out = 0.5 + np.abs(a)
    elif k in ("running_mean", "bias"):
        out = 0.1 * a
    elif k == "lambda":
        out = 0.1 + 0.5 * np.abs(a)
    elif k == "kappa_gate":
        out = -0.5 + 0.1 * a
    elif k in ("kappa_aglu", "norm_weight"):
        out = 1.0 + 0.1 * a
    elif k == "norm_weight_last":
        out = 0.5 * (1.0 + 0.1 * a)
    elif k == "norm_weight_stem":
        out = 3.0 * (1.0 + 0.1 * a)
    elif k == "scale":
        out = 5.0 + 0.1 * a
    elif k == "kernel":
        out = a * math.sqrt(2.0 / math.prod(shape[1:]))
    out = np.asarray(out)
    assert out.dtype == np.float32 and out.shape == shape, (key, out.dtype, out.shape)
    return out


def checksum(arr):
    """crc32 of the little-endian C-order bytes; stored per key in the .json files."""
    arr = np.ascontiguousarray(arr)
    return zlib.crc32(arr.astype(arr.dtype.newbyteorder("<")).tobytes())


def images(seed, size):
    """Deterministic NCHW float32 test batch."""
    return np.random.default_rng(seed).standard_normal((2, 3, size, size)).astype(np.float32)
