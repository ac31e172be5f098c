"""A folder of class folders: anybody's own images."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_apa.class_counts import ClassCounts
from training.checks import check_choice, check_number, check_whole
from training.data.classification.encoded import FileImages
from training.data.classification.source import Source
from training.data.classification.split_folders import class_folders, find_splits
from training.data.decoding import unreadable_images
from training.image_files import ENDINGS, FoundImages
from zoo import Preprocessing
from zoo.preprocessing import imagenet

__all__ = ["folder", "stratified_split"]


def folder(
    path: str | os.PathLike,
    validation_fraction: float = 0.2,
    on_corrupt: str = "error",
    seed: int = 0,
    *,
    preprocessing: Preprocessing | None = None,
) -> Source:
    """Images in a folder for each class, which is named after the class.

    Either `path/CLASS/…`: a part of each class is held out, at random, and becomes the test images. Or
    `path/train/CLASS/…` with `path/test/CLASS/…` or `path/val/CLASS/…` beside it: these are used as they are; where
    both are there, `val` is the validation set. In any case and also called `training`, `seg_train`, `trn`;
    `testing`, `seg_test`, `tst`; `valid`, `validation`, `dev`, `eval`. A folder of such a name without class folders is
    left out where there are splits, and a class where there are none; the `notes` say so.

    Classes are in the order of their names. Images may lie in folders below that of their class; links are followed.
    Left out is what is hidden (`.name`), what has not the ending of an image (the `notes` count these), and folders
    that this project wrote, such as `runs`. Every image is decoded once before training, as the training does it.

    Args:
        path: The folder.
        validation_fraction: Share of each class that is held out, above 0 and below 1. A class keeps at least one
            training image, and has at least one test image if it has two images.
        on_corrupt: `"error"` or `"skip"`: what happens to images that cannot be decoded. Both list all of them, the
            one in its message, the other in the `notes` of the source. For one that changes later see `FileImages`.
        seed: Of the choice of the images that are held out.
        preprocessing: How a test image is prepared; by default the centre 224 of 256 with ImageNet's mean.

    Returns: A `Source`; its `notes` name the classes that have no test image and what was left out or skipped.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: Fewer than two class folders, a class folder without (readable) images, only classes of one image,
            a class that only the test folder has, images that cannot be decoded, folders that may be splits or
            classes, a file that links put into two classes or parts.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as path:
    ...     for name, count in (("cat", 10), ("emu", 1)):
    ...         Path(path, name).mkdir()
    ...         for number in range(count):
    ...             Image.new("RGB", (40, 30)).save(f"{path}/{name}/{number}.png")
    ...     source = folder(path)
    >>> source.class_names, len(source.train), len(source.test)
    (('cat', 'emu'), 9, 2)
    >>> source.notes
    ("class 1 ('emu') has one image: it is trained on, and no test image is left to measure the class by",)
    """
    check_number("validation_fraction", validation_fraction, above=0, below=1)
    check_choice("on_corrupt", on_corrupt, ("error", "skip"))
    check_whole("seed", seed, at_least=0)
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"path must be a folder of class folders; given: {path}, which is {_what_it_is(path)}.")
    found = FoundImages()
    parts, notes = find_splits(path, found)
    given = parts is not None and len(parts) > 1
    if parts is None:
        parts = {"train": class_folders(path)}
    elif not given:
        notes.append(
            f"there are no test images in class folders: a part of each class in {parts['train'].path} is held out"
        )
    # The test images are those of `test`, else those of `val`.
    folders = {"train": parts.pop("train")}
    if given:
        test = parts.pop("test", None)
        folders["test"] = test or parts.pop("validation")
        folders |= parts
    names = _class_names(folders["train"])
    files = {part: _files_by_class(part, place, folders["train"], names) for part, place in folders.items()}
    notes += _left_out(folders, found)
    files, skipped = _without_corrupt(files, on_corrupt)
    notes += skipped
    _refuse_empty_folders(files["train"], folders["train"], skipped)
    counts = [len(own) for own in files["train"].values()]
    paths = [file for own in files["train"].values() for file in own]
    train = FileImages(paths, np.repeat(np.arange(len(names)), counts), on_corrupt)
    if not given:
        kept, held_out = stratified_split(train.labels, validation_fraction, seed)
        if not len(held_out):
            raise ValueError(f"{path} must have two images of a class, or none is left to test on; given: one of each.")
        images = {"train": train.subset(kept), "test": train.subset(held_out)}
    else:
        images = {"train": train}
        for part in files.keys() - {"train"}:
            own = [(file, label) for label, name in enumerate(names) for file in files[part].get(name, ())]
            labels = np.array([label for _, label in own], dtype=np.int32)
            images[part] = FileImages([file for file, _ in own], labels, on_corrupt)
    class_counts = ClassCounts.from_labels(images["train"].labels, names=names)
    notes += _without_test_image(class_counts, images["test"], given)
    return Source(
        name=path.resolve().name or "folder",
        class_counts=class_counts,
        preprocessing=preprocessing or imagenet(),
        notes=tuple(notes),
        **images,
    )


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Holds out about `fraction` of each class, at random.

    Of n images of a class `round(fraction * n)` are held out, but at least one where n is 2 or more, and at most
    n - 1, so that every class is trained on.

    Args:
        labels: Integers `(N,)`.
        fraction: Above 0 and below 1.
        seed: Of the choice; that in one class does not depend on the others.

    Returns: Indices that are kept and indices that are held out, int64, each in ascending order.

    >>> kept, held_out = stratified_split(np.array([0] * 10 + [1] * 2 + [2]), 0.2, seed=0)
    >>> len(kept), np.array([0] * 10 + [1] * 2 + [2])[held_out].tolist()
    (10, [0, 0, 1])
    """
    labels = np.asarray(labels)
    held_out = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(own)), 1), len(own) - 1)
        generator = np.random.default_rng(np.random.SeedSequence([seed, int(label)]))
        held_out.append(generator.permutation(own)[:count])
    apart = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), apart), apart


def _class_names(folders):
    names = list(folders.classes)
    if len(names) < 2:
        found = f"one, {names[0]!r}" if names else "none"
        raise ValueError(
            f"{folders.path} must have a folder of images for each of at least two classes; given: {found}."
        )
    return names


def _files_by_class(part, folders, train, names):
    """Names of image files by class, sorted."""
    unknown = [name for name in folders.classes if name not in train.classes]
    if unknown:
        raise ValueError(
            f"{folders.path} must have class folders that are in {train.path} too; given: {unknown[0]!r}"
            + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
            + ", for which nothing could be learned. Add training images of it, or remove it."
        )
    if not folders.with_images:
        raise ValueError(f"{folders.path} must have images; given: none. Allowed endings: {', '.join(ENDINGS)}.")
    return {name: own.files for name, own in folders.classes.items()}


def _left_out(folders, found):
    """Notes on what is not taken; an error where a link puts a file into two classes, or into training and test."""
    notes = []
    for place in folders.values():
        if place.loose:
            number, where = len(place.loose), "" if len(folders) == 1 else f" in {place.path}"
            notes.append(
                f"{number} images lie beside the class folders{where}, not in one, and are left out: {place.loose[0]} …"
            )
        found.add(place.found)
        for own in place.classes.values():
            found.add(own)
    if found.linked:
        _refuse_shared(folders)
    return [*notes, *found.notes()]


def _refuse_shared(folders):
    owner: dict[str, tuple[str, str, str]] = {}
    for part, place in folders.items():
        for name, own in place.classes.items():
            for file in own.files:
                other, *where = owner.setdefault(os.path.realpath(file), (file, part, name))
                if where != [part, name]:
                    raise ValueError(
                        f"{file} must be an image of one class, and of either the training or the test images; given: "
                        f"the same file as {other}, by a link. Remove the link."
                    )


def _without_corrupt(files, on_corrupt):
    paths = [path for by_class in files.values() for own in by_class.values() for path in own]
    corrupt = unreadable_images(paths)
    if not corrupt:
        return files, []
    listed = "\n".join(f"  {path}: {reason}" for path, reason in corrupt.items())
    if on_corrupt == "error":
        raise ValueError(
            f"{len(corrupt)} of {len(paths)} images cannot be decoded; remove them, or leave them out with "
            f"on_corrupt='skip' (--data.on-corrupt skip):\n{listed}"
        )
    kept = {
        part: {name: [path for path in own if path not in corrupt] for name, own in by_class.items()}
        for part, by_class in files.items()
    }
    return kept, [f"{len(corrupt)} of {len(paths)} images cannot be decoded and were skipped:\n{listed}"]


def _refuse_empty_folders(files, folders, skipped):
    empty = [name for name, own in files.items() if not own]
    if empty:
        others = f" and {len(empty) - 1} more class folders" if len(empty) > 1 else ""
        # A class of images that cannot be read here is not to be removed for want of images.
        lacking = FoundImages()
        for name in empty:
            lacking.add(folders.classes[name])
        raise ValueError(
            f"{folders.path / empty[0]}{others} must have {'a readable' if skipped else 'an'} image; given: none. Put "
            f"images there or remove the folder. Allowed endings: {', '.join(ENDINGS)}."
            + "".join(f"\n  {note}" for note in lacking.notes())
        )


def _without_test_image(class_counts, test, given):
    notes = []
    for index in np.flatnonzero(np.bincount(test.labels, minlength=class_counts.num_classes) == 0):
        why = "has no image in the test folder" if given else "has one image"
        notes.append(
            f"{class_counts.describe(index)} {why}: it is trained on, and no test image is left to measure the class by"
        )
    return notes


def _what_it_is(path):
    return "a file" if path.exists() else "not there"
