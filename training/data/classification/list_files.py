"""Data sets that are lists of image files: `path label` lines, as the authors use, and iNaturalist's JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_apa.class_counts import ClassCounts
from training.checks import check_choice, check_flag, check_whole
from training.data.classification.encoded import FileImages
from training.data.classification.source import Source, refuse_empty_classes
from training.data.decoding import unreadable_images
from training.data.json_files import category_name, entry_of, read_annotation_file, read_bytes
from training.files import missing_files
from training.image_files import some
from zoo import Preprocessing
from zoo.preprocessing import imagenet

__all__ = ["inaturalist_json", "list_files", "read_list"]


def list_files(
    train: str | os.PathLike,
    test: str | os.PathLike,
    root: str | os.PathLike,
    validation: str | os.PathLike | None = None,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    relabel_by_count: bool = False,
    check_images: bool = False,
    on_corrupt: str = "error",
    preprocessing: Preprocessing | None = None,
    name: str = "list_files",
) -> Source:
    r"""Images of list files: `Places_LT_train.txt`, `ImageNet_LT_train.txt` and the like.

    A line is `path label`: the label, from 0, is what stands behind the last white space, the path, which may contain
    spaces, is below `root`. Empty lines are passed over.

    Args:
        train, test, validation: The list files.
        root: The folder that the paths in them start from.
        num_classes: Number of classes; by default the number of `class_names`, else the largest training label + 1.
        class_names: Names of the classes, in the order of their labels.
        relabel_by_count: Whether the classes are in the order of their training images, the largest first, as in
            the code of Adaptive Parametric Activation; classes of equal size in the order of the list's labels,
            where the authors' order depends on their NumPy and processor: see `Source.relabelled_by_count`. Without
            it labels are those of the list, as in the code of Balanced Meta-Softmax.
        check_images: Whether to decode every image before training. That every file is there is checked anyway.
        on_corrupt: `"error"` or `"skip"`: what happens to images that cannot be decoded. Those that the check finds are
            named in the error, or left out and named in the `notes` of the source. For one that turns up in the
            training see `FileImages`.
        preprocessing: How a test image is prepared; by default the centre 224 of 256 with ImageNet's mean.
        name: Of the data set.

    Raises:
        FileNotFoundError: A list, the root folder, or images of a list that are not there.
        ValueError: A line that is no path and label, a label beyond the classes (both with file and line number), a
            class without training images, images that cannot be decoded.
    Source: Large-Scale Long-Tailed Recognition in an Open World (CVPR 2019), its lists.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import json
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for file in ("a cat.png", "emu.png"):
    ...         Image.new("RGB", (40, 30)).save(f"{folder}/{file}")
    ...     lines = Path(folder, "train.txt")
    ...     _ = lines.write_text("a cat.png 0\nemu.png 1\n")
    ...     list_files(lines, lines, folder, class_names=["cat", "emu"])
    Source(list_files: 2 training and 2 test images of shape (224, 224, 3), ClassCounts(2 classes, 2 images,
    1 to 1 a class))
    """
    check_flag("relabel_by_count", relabel_by_count)
    check_flag("check_images", check_images)
    check_choice("on_corrupt", on_corrupt, ("error", "skip"))
    if num_classes is not None:
        check_whole("num_classes", num_classes, at_least=1)
    if class_names is not None and num_classes not in (None, len(class_names)):
        raise ValueError(f"num_classes must be the number of class_names, {len(class_names)}; given: {num_classes}.")
    num_classes = num_classes if class_names is None else len(class_names)
    paths, labels = read_list(train, root, num_classes)
    class_counts = ClassCounts.from_labels(labels, num_classes, names=class_names)
    refuse_empty_classes(class_counts, os.fspath(train))
    parts = {"train": (paths, labels)}
    for part, file in (("test", test), ("validation", validation)):
        if file is not None:
            parts[part] = read_list(file, root, class_counts.num_classes)
    return _source(name, parts, class_counts, relabel_by_count, check_images, on_corrupt, preprocessing)


def read_list(
    file: str | os.PathLike, root: str | os.PathLike = "", num_classes: int | None = None
) -> tuple[list[str], np.ndarray]:
    r"""Paths, below `root`, and labels of a list file; all lines of `path label`.

    Returns: N paths and int32 `(N,)`.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: A line that is no path and label, or whose label is not below `num_classes`; no lines.

    >>> import tempfile
    >>> import json
    >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
    ...     _ = file.write("a/my cat.jpg 0\nb/emu.jpg 1\n")
    ...     file.flush()
    ...     read_list(file.name, "images")
    (['images/a/my cat.jpg', 'images/b/emu.jpg'], array([0, 1], dtype=int32))
    """
    paths, labels = [], []
    for number, line in enumerate(read_bytes(file, "the list file").split(b"\n"), start=1):
        if not line.strip():
            continue
        place = f"{os.fspath(file)}, line {number}"
        try:
            path, label = line.decode("utf-8-sig" if number == 1 else "utf-8").strip().rsplit(maxsplit=1)
        except UnicodeDecodeError:
            raise ValueError(
                f"{place}: the line must be text in UTF-8; given: {_shortened(line)}. Save the list as UTF-8."
            ) from None
        except ValueError:
            raise ValueError(
                f"{place}: the line must be a path, white space and a label; given: {_shortened(line)}."
            ) from None
        if not (label.isascii() and label.isdigit()):
            raise ValueError(f"{place}: the label must be a whole number from 0; given: {_shortened(label)}.")
        if num_classes is not None and int(label) >= num_classes:
            raise ValueError(
                f"{place}: the label must be from 0 to {num_classes - 1}, for {num_classes} classes; given: {label}."
            )
        if int(label) > np.iinfo(np.int32).max:
            raise ValueError(f"{place}: the label must be a whole number from 0; given: {_shortened(label)}.")
        paths.append(os.path.join(os.fspath(root), path))
        labels.append(int(label))
    if not paths:
        raise ValueError(f"{os.fspath(file)} must have lines of a path and a label; given: an empty file.")
    return paths, np.array(labels, dtype=np.int32)


def inaturalist_json(
    train: str | os.PathLike,
    test: str | os.PathLike,
    root: str | os.PathLike,
    *,
    categories: str | os.PathLike | None = None,
    relabel_by_count: bool = False,
    check_images: bool = False,
    on_corrupt: str = "error",
    preprocessing: Preprocessing | None = None,
    name: str = "inaturalist2018",
) -> Source:
    """Images of iNaturalist's annotation files: `train2018.json` for training and `val2018.json` for the test.

    The label is the `category_id`, from 0 to 8,141 in 2018; the path, such as
    `train_val2018/Plantae/7477/3b60c9486db1d2ee875f11a669fbde4a.jpg`, is below `root`.

    Args:
        train, test: The annotation files, with `images`, `annotations` and `categories`.
        root: The folder that holds `train_val2018`.
        categories: `categories.json`, for the names of the species, which the annotation files of 2018 have under
            numbers only; by default the names in `train`.
        relabel_by_count, check_images, on_corrupt, preprocessing, name: as for `list_files`.

    Raises:
        FileNotFoundError: A file, the root folder, or images that are not there.
        ValueError: A file that is no JSON or lacks something, with file and entry; a class without training images;
            images that cannot be decoded.
    Source: The iNaturalist Species Classification and Detection Dataset (CVPR 2018).

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> import json
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (40, 30)).save(f"{folder}/a.png")
    ...     file = Path(folder, "train2018.json")
    ...     images = [{"id": 7, "file_name": "a.png"}]
    ...     annotations = [{"image_id": 7, "category_id": 0}]
    ...     categories = [{"id": 0, "name": "Aves"}]
    ...     _ = file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    ...     inaturalist_json(file, file, folder).class_names
    ('Aves',)
    """
    check_flag("relabel_by_count", relabel_by_count)
    check_flag("check_images", check_images)
    check_choice("on_corrupt", on_corrupt, ("error", "skip"))
    contents = read_annotation_file(train)
    names = _category_names(contents if categories is None else read_annotation_file(categories), categories or train)
    paths, labels = _annotations(contents, train, root, len(names))
    class_counts = ClassCounts.from_labels(labels, names=names)
    refuse_empty_classes(class_counts, os.fspath(train))
    parts = {"train": (paths, labels), "test": _annotations(read_annotation_file(test), test, root, len(names))}
    return _source(name, parts, class_counts, relabel_by_count, check_images, on_corrupt, preprocessing)


def _source(name, parts, class_counts, relabel_by_count, check_images, on_corrupt, preprocessing):
    for part, (paths, _) in parts.items():
        _check_files(part, paths)
    notes = ()
    if check_images:
        parts, notes = _without_unreadable(parts, on_corrupt)
        class_counts = ClassCounts.from_labels(parts["train"][1], class_counts.num_classes, names=class_counts.names)
        refuse_empty_classes(class_counts, "the training list without the images that cannot be decoded")
    images = {part: FileImages(paths, labels, on_corrupt) for part, (paths, labels) in parts.items()}
    source = Source(
        name=name, class_counts=class_counts, preprocessing=preprocessing or imagenet(), notes=notes, **images
    )
    return source.relabelled_by_count() if relabel_by_count else source


def _check_files(part, paths):
    missing = missing_files(paths)
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(paths)} images that the {part} list names are not there: {some(missing)}. "
            "Is root the folder that the paths of the list start from?"
        )


def _without_unreadable(parts, on_corrupt):
    """The parts without what cannot be decoded, and a note on it; an error where that is asked for."""
    paths = dict.fromkeys(path for paths, _ in parts.values() for path in paths)
    unreadable = unreadable_images(paths)
    if not unreadable:
        return parts, ()
    listed = "\n".join(f"  {path}: {reason}" for path, reason in unreadable.items())
    if on_corrupt == "error":
        raise ValueError(
            f"{len(unreadable)} of {len(paths)} images cannot be decoded; take them out of the lists, or leave them "
            f"out with on_corrupt='skip' (--data.on-corrupt skip):\n{listed}"
        )
    kept = {}
    for part, (paths_of_part, labels) in parts.items():
        good = [place for place, path in enumerate(paths_of_part) if path not in unreadable]
        if not good:
            raise ValueError(
                f"the {part} list must have an image that can be decoded; given: none. Replace them:\n{listed}"
            )
        kept[part] = [paths_of_part[place] for place in good], labels[good]
    return kept, (f"{len(unreadable)} of {len(paths)} images cannot be decoded and were skipped:\n{listed}",)


def _category_names(contents, file):
    """The names in the order of their ids, which have to be 0 to C - 1."""
    categories = contents.get("categories") if isinstance(contents, dict) else contents
    if not isinstance(categories, list) or not categories:
        raise ValueError(f"{os.fspath(file)} must have a list of categories; given: none.")
    names = {}
    for position, category in enumerate(categories):
        place = f"{os.fspath(file)}, category {position}"
        names[entry_of(category, "id", int, place)] = category_name(category, place)
    if sorted(names) != list(range(len(categories))):
        raise ValueError(
            f"{os.fspath(file)}: the ids of its {len(categories)} categories must be 0 to {len(categories) - 1}, each "
            f"once; given: {min(names)} to {max(names)}."
        )
    return [names[number] for number in range(len(categories))]


def _annotations(contents, file, root, num_classes):
    file = os.fspath(file)
    if not isinstance(contents, dict):
        raise ValueError(f"{file} must hold images and annotations; given: a {type(contents).__name__}.")
    for key in ("images", "annotations"):
        if not isinstance(contents.get(key), list) or not contents[key]:
            raise ValueError(f"{file} must have a list of {key}; given: none.")
    category: dict[int, Any] = {}
    for position, annotation in enumerate(contents["annotations"]):
        place = f"{file}, annotation {position}"
        label = entry_of(annotation, "category_id", int, place)
        if not 0 <= label < num_classes:
            raise ValueError(
                f"{place}: category_id must be from 0 to {num_classes - 1}, for {num_classes} classes; given: {label}."
            )
        image = entry_of(annotation, "image_id", int, place)
        if category.setdefault(image, label) != label:
            raise ValueError(
                f"{place}: the image {image} must have one category; given: {category[image]} and {label}."
            )
    paths, labels = [], []
    for position, image in enumerate(contents["images"]):
        place = f"{file}, image {position}"
        number = entry_of(image, "id", int, place)
        if number not in category:
            raise ValueError(f"{place}: the image {number} must have an annotation; given: none.")
        paths.append(os.path.join(os.fspath(root), entry_of(image, "file_name", str, place)))
        labels.append(category[number])
    return paths, np.array(labels, dtype=np.int32)


def _shortened(text):
    text = text.decode("utf-8", errors="backslashreplace") if isinstance(text, bytes) else text
    text = text.strip()
    return repr(text if len(text) <= 80 else text[:77] + "...")
