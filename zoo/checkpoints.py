"""PyTorch checkpoints of every model of the zoo: networks in the authors' layout, detectors in torchvision's."""

from zoo.detection.checkpoint import load_torchvision, to_torchvision
from zoo.torch_checkpoint import load_authors, to_authors


def load_torch_checkpoint(model, source, strict=True, skip_classifier=False):
    """Load a PyTorch checkpoint into a model of the zoo.

    The key names are those of the authors' networks. ResNet, ResNeXt and Wide ResNet of torchvision and timm have the
    same keys. timm's gates (`se.fc1`, `se.fc2`) are renamed if they have no biases. The gates of its `seresnet50` and
    `seresnext50_32x4d` have biases, which the authors' networks cannot hold.

    Args:
        model: A model from `zoo.create_model` with the same architecture and options, or a detector
            (`zoo.FasterRCNN`, `zoo.MaskRCNN`). A detector needs a checkpoint of torchvision's, see
            `zoo.detection.load_torchvision`.
        source: The path of a `.pth`, `.pt` or `.safetensors` file, or a mapping from key to array. Files are read
            without running code. If training tools put wrappers around the tensors (`zoo.checkpoint_wrappers`), they
            are removed.
        strict: Whether to raise an error if a tensor is missing, unexpected or of another shape. Otherwise the
            tensors that fit are loaded.
        skip_classifier: Whether to leave the model's classifier as it is, for another number of classes.

    Returns:
        A dict with the lists `missing`, `unexpected` and `misshapen`.

    Raises:
        ValueError: With `strict`, if tensors do not fit or do not hold real numbers; the message names each one, and
            nothing is loaded. Also if a tensor holds NaN, infinite numbers or negative variances, if the file cannot
            be read, or if it holds more than tensors and plain values.
        ImportError: If the file needs PyTorch or safetensors, and it is not installed.

    >>> import zoo
    >>> model = zoo.create_model("resnet8")
    >>> report = zoo.load_torch_checkpoint(model, zoo.to_torch_state_dict(model))
    >>> report["missing"], report["unexpected"]
    ([], [])
    """
    load = load_torchvision if hasattr(model, "proposal_head") else load_authors
    return load(model, source, strict, skip_classifier)


def to_torch_state_dict(model):
    """The model's weights as the authors' PyTorch state dict, a dict of numpy arrays in the order of the layers.

    The weights of a detector are in torchvision's layout, see `zoo.detection.to_torchvision`.

    `num_batches_tracked` of a batch normalisation is the value of the loaded checkpoint, else 0, because Keras does
    not count batches. A `PriorCorrection` behind the logits has no weights and is not in the dict.

    Raises:
        ValueError: If the authors' networks do not have a layer or weight of the model.

    >>> import zoo
    >>> state = zoo.to_torch_state_dict(zoo.create_model("se_resnet8"))
    >>> state["layer1.0.se.excitation.0.weight"].shape
    (4, 16)
    """
    return to_torchvision(model) if hasattr(model, "proposal_head") else to_authors(model)
