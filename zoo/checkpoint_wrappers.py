"""The network inside a checkpoint: what training tools put around its tensors, in dicts and before their names.

Known are plain scripts, `torch.compile`, `DataParallel` and its kin, `AveragedModel` (SWA), EMA (timm, ema-pytorch),
Lightning, mmpretrain and Transformers, in any nesting. What is not known is named, never guessed.
"""

import re
import warnings
from collections.abc import Mapping

# Entries that hold weights, the first one preferred: the weights that were trained, then their moving average.
ENTRIES = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params", "module",
           "state_dict_best", "best_state_dict", "current_model_state")  # fmt: skip
AVERAGES = ("state_dict_ema", "model_ema", "ema_model", "ema_state_dict", "model_ema_state_dict", "params_ema", "ema",
            "averaged_model", "swa_model", "swa_state_dict", "model_swa", "ema_net", "net_ema")  # fmt: skip
# Parts of a name that stand before those of a network: of a wrapper, or of the attribute that holds the network.
PREFIXES = {"module", "model", "net", "network", "backbone", "encoder", "resnet", "feature_extractor", "base_model",
            "online_model", "feat_model", "classifier", *AVERAGES}  # fmt: skip
# Wrappers of any module inside the network too; DataParallel of a stage.
_ANYWHERE = re.compile(
    r"(?<![^.])(_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|(?<=layer\d\.)module\."
)
_COUNTS = ("n_averaged", "initted", "step")  # beside an averaged model
# Of a detector (torchvision), a ResNet and one of Transformers: the first tensor, before which the wrappers stand, and
# one more, since other networks have a conv1 too.
_DETECTOR = ("backbone.body.conv1.weight", "backbone.body.layer1.0.conv2.weight")
_RESNET = ("conv1.weight", "layer1.0.conv2.weight")
_TRANSFORMERS = ("embedder.embedder.convolution.weight", "encoder.stages.0.layers.0.layer.1.convolution.weight")
# The classifier where it stands beside the network.
_HEADS = re.compile(r"(?:(?:cls_)?head\.fc|head|fc|classifier\.1|classifier)\.(weight|bias|scale|g|tempearture)")


def unwrap(source, called="source"):
    """The tensors of the network in a checkpoint, by the network's own names.

    Args:
        source: A mapping: of tensors by name, or with such mappings in it.
        called: What an error calls it: the name of its file, if there is one.

    Raises: ValueError: If there are tensors, but none where one is known to look, naming where they are.

    >>> import numpy as np
    >>> from zoo.checkpoint_wrappers import unwrap
    >>> state = {f"module._orig_mod.{key}": np.ones(3) for key in ("conv1.weight", "layer1.0.conv2.weight")}
    >>> list(unwrap({"net": state, "epoch": 7}))
    ['conv1.weight', 'layer1.0.conv2.weight']
    """
    tensors = {_ANYWHERE.sub("", k) if isinstance(k, str) else k: value for k, value in _open(source, called).items()}
    return _from_transformers(_without_prefixes(tensors, called))


def _open(source, called):
    """The innermost mapping that holds the tensors."""
    while True:
        if isinstance(source.get("feat_model"), Mapping):  # the two halves of Balanced Meta-Softmax
            return {**source["feat_model"], **source.get("classifier", {})}
        filled = [key for key in (*ENTRIES, *AVERAGES) if _has_tensors(source.get(key))]
        if not filled:
            _check_open(source, called)
            return source
        _tell_choice([repr(key) for key in filled])
        source = source[filled[0]]


def _has_tensors(value):
    """Whether it is a mapping with names of tensors in it, at any depth."""
    return isinstance(value, Mapping) and any(
        isinstance(key, str) and (not isinstance(each, Mapping) or _has_tensors(each))
        for key, each in value.items()
        if isinstance(each, Mapping) or hasattr(each, "shape")
    )


def _check_open(source, called):
    if any(hasattr(value, "shape") for value in source.values()):
        return
    places = [repr(key) for key, value in source.items() if _has_tensors(value)]
    if places:
        raise ValueError(
            f"{called} must hold its tensors under one of {', '.join(ENTRIES)}; given: {', '.join(places)}. Give the "
            'entry with the weights, such as torch.load(path, weights_only=True)["..."].'
        )


def _tell_choice(places):
    if len(places) > 1:
        warnings.warn(
            f"The checkpoint holds several sets of weights: {', '.join(places)}. Those of {places[0]} are taken. For "
            "others, give a mapping with them alone in place of the file.",
            stacklevel=2,
        )


def _without_prefixes(tensors, called):
    """The tensors by the names that the network itself has for them."""
    starts: list[str] = []
    for first, second in (_DETECTOR, _RESNET, _TRANSFORMERS):
        ends = [key.removesuffix(first) for key in tensors if isinstance(key, str) and key.endswith(first)]
        starts = starts or [start for start in ends if start[-1:] in ("", ".") and f"{start}{second}" in tensors]
    known = [start for start in starts if set(start.split(".")[:-1]) <= PREFIXES]
    if not known:
        if starts:
            raise ValueError(
                f"{called} must hold a network under known names; given: {', '.join(map(repr, starts))}. Known before "
                f"the names of its tensors are {', '.join(sorted(PREFIXES))}. Give a mapping without what is not known."
            )
        return {key.removeprefix("module.") if isinstance(key, str) else key: v for key, v in tensors.items()}
    known.sort(key=lambda start: any(part in AVERAGES for part in start.split(".")))
    _tell_choice([repr(start) for start in known])
    start, *others = known
    found, beside = {}, {}
    for key, value in tensors.items():
        if isinstance(key, str) and key.startswith(start):
            found[key.removeprefix(start)] = value
        elif not any(other and key.startswith(other) for other in others):
            beside[key] = value
    return {**found, **_beside(beside, start, found)}


def _beside(tensors, start, found):
    """What is not in the network: its classifier under the network's name for it, and the rest as it is."""
    renamed = {}
    has_head = any(re.match(r"(fc|linear)\.", key) for key in found)
    parts = start.split(".")[:-1]
    parents = ["".join(f"{part}." for part in parts[:i]) for i in range(len(parts))]
    for key, value in tensors.items():
        name = next((key.removeprefix(parent) for parent in reversed(parents) if key.startswith(parent)), key)
        head = _HEADS.fullmatch(name)
        if start and name.split(".")[-1] in _COUNTS and name.count(".") <= len(parts):
            continue
        renamed[f"fc.{head[1]}" if head and start and not has_head else key] = value
    return renamed


def _from_transformers(tensors):
    """The names of torchvision for a ResNet of Transformers."""
    if _TRANSFORMERS[0] not in tensors:
        return tensors
    inside = {"convolution": "conv", "normalization": "bn"}
    renamed = {}
    for key, value in tensors.items():
        stem = re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", key)
        block = re.fullmatch(
            r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut)\.(convolution|normalization)\.(\w+)", key
        )
        if stem:
            key = f"{inside[stem[1]]}1.{stem[2]}"
        elif block:
            stage, number, place, kind, name = block.groups()
            role = f"downsample.{int(kind == 'normalization')}" if place is None else f"{inside[kind]}{int(place) + 1}"
            key = f"layer{int(stage) + 1}.{number}.{role}.{name}"
        renamed[key] = value
    return renamed
