"""Which folders below a data set's folder are classes, and which are splits: by name and by what is in them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from training.image_files import FoundImages, folders_in, images_below, is_image

__all__ = ["ClassFolders", "class_folders", "find_splits", "part_of"]

_WORDS = {
    "train": ("train", "training", "trainset", "trn", "tr"),
    "validation": ("val", "valid", "validation", "dev", "eval", "evaluation", "valset", "vld", "va"),
    "test": ("test", "testing", "testset", "tst", "te"),
}
# Also of languages, countries and much else: such a folder is a split only if it has class folders.
_SHORT = {"tr", "va", "te"}
_PARTS = {word: part for part, words in _WORDS.items() for word in words}
# Words that a split's name may have beside its own.
_FILLING = {"seg", "set", "data", "dataset", "image", "images", "img", "imgs", "photos", "pictures", "folder", "split"}
_CALLED = {"train": "training", "validation": "validation", "test": "test"}
# In names that `part_of` does not know: `train1`, `01_train`, `public_train`, `Trainingsdaten`, `train_val`.
_HINTS = re.compile("train|test|val", re.IGNORECASE)


@dataclasses.dataclass
class ClassFolders:
    """A folder of class folders: the images of each by the folder's name, and how many images lie beside them."""

    path: Path
    classes: dict[str, FoundImages]
    loose: list[str]
    found: FoundImages

    @property
    def with_images(self) -> list[str]:
        """The class folders that have images."""
        return [name for name, own in self.classes.items() if own.files]


def part_of(name: str) -> str | None:
    """The part of a data set that a folder's name stands for, in any case; `None` if it is no name of a part.

    >>> [part_of(name) for name in ("TRAIN", "seg_test", "Validation", "train2017", "trn", "trainer")]
    ['train', 'test', 'validation', 'train', 'train', None]
    """
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])|(?:19|20)\d\d$", " ", name).lower())
    if re.search(r"[^A-Za-z_\-. ]", re.sub(r"(?:19|20)\d\d$", "", name)):
        return None
    words = [word for word in words if word not in _FILLING]
    return _PARTS.get(words[0]) if len(words) == 1 else None


def class_folders(path: Path) -> ClassFolders:
    """The class folders in a folder with their images; without what this project wrote."""
    found, classes = FoundImages(linked=path.is_symlink()), {}
    for name in folders_in(path, found):
        own = images_below(path / name)
        if not own.files and own.written:
            found.written.append(str(path / name))  # `runs`, which holds nothing but runs
            continue
        classes[name] = own
    loose = sorted(entry.name for entry in path.iterdir() if _is_loose(entry))
    return ClassFolders(path, classes, loose, found)


def find_splits(path: Path, found: FoundImages) -> tuple[dict[str, ClassFolders] | None, list[str]]:
    """The parts of a data set that somebody has split into folders, and what is to be said about it.

    Folders are splits by their names, in any case, and if there are class folders in them: at least two in that of the
    training, one in the others. A folder of such a name that has none is left out where there is one of the training,
    and otherwise, if it is the only one, a class like any other: `train` beside `car` and `bus`.

    Args:
        path: The folder of the data set.
        found: Takes up what is left out beside splits.

    Returns: The class folders of `train`, `test` and `validation`: `train` alone if the others have no class folders;
        `None` where the folders are classes. And notes, a sentence each.

    Raises:
        ValueError: It cannot be told what the folders are.
    """
    beside = FoundImages()
    names = folders_in(path, beside)
    parts = {name: part for name in names if (part := part_of(name)) is not None}
    for name in [name for name in parts if name.lower() in _SHORT]:
        if not class_folders(_inner(path / name, parts[name])).with_images:
            del parts[name]
    if not parts:
        _refuse_wrapper(path)
        return None, _look_at_classes(path, names)
    named = {name: class_folders(_inner(path / name, part)) for name, part in parts.items()}
    split = {name for name, own in named.items() if len(own.with_images) >= (2 if parts[name] == "train" else 1)}
    for part, called in _CALLED.items():
        if len(same := [name for name in sorted(split) if parts[name] == part]) > 1:
            raise ValueError(
                f"{path} must have one folder of {called} images; given: {_listed(same)}, by their names. Keep one, "
                "and rename or move the others."
            )
    chosen = {parts[name]: name for name in split}
    flat = [name for name in parts if name not in split]
    others = []
    for name in names:
        if name not in parts:
            own = images_below(path / name)
            others += [name] if own.files else []
            beside.written += [] if own.files else own.written
    measured = chosen.keys() - {"train"}
    if "train" not in chosen:
        _refuse_unclear(path, parts, named)
        notes = _look_at_classes(path, names)
        return None, notes or [_as_class(name, others) for name in parts if others]
    if not measured and not flat and others:
        number = len(named[chosen["train"]].with_images)
        raise ValueError(
            f"{path} must be a folder of classes or of splits; given: {chosen['train']!r}, which may be the training "
            f"images, in {number} class folders, or a class beside {_listed(others)}. Move these away if it is the "
            "former, else rename it."
        )
    notes = [_left_out(named[name], name) for name in flat]
    if not measured and (empty := [name for name in flat if not named[name].loose and not named[name].with_images]):
        raise ValueError(
            f"{path / empty[0]} must have images in class folders; given: none. Put images there, or remove the folder."
        )
    found.add(beside)
    if loose := [entry.name for entry in path.iterdir() if _is_loose(entry)]:
        notes.append(f"{len(loose)} images lie in no class folder, and are left out: {path / min(loose)} …")
    if others:
        notes.append(f"folders beside {_listed(sorted(chosen.values()))} are left out: {_listed(others)}")
    return {part: named[chosen[part]] for part in _CALLED if part in chosen}, notes


def _inner(path: Path, part: str) -> Path:
    """The folder that has the class folders: in some archives there is `seg_train/seg_train`."""
    while True:
        names = folders_in(path, FoundImages())
        if len(names) != 1 or part_of(names[0]) != part or any(_is_loose(entry) for entry in path.iterdir()):
            return path
        path = path / names[0]


def _refuse_wrapper(path):
    """An error where a single folder has images, with the splits in it or deeper, as `data` or `archive/dataset`."""
    place, seen = path, set()
    while (real := place.resolve()) not in seen:  # a link may lead back
        seen.add(real)
        inside = [name for name in folders_in(place, FoundImages()) if images_below(place / name).files]
        if len(inside) != 1 or part_of(inside[0]) is not None:
            break
        place = place / inside[0]
    parts = [name for name in inside if part_of(name)]
    training = [name for name in parts if part_of(name) == "train"]
    if place == path or not training:
        return
    if not class_folders(_inner(place / training[0], "train")).with_images:
        raise ValueError(
            f"path must be a folder with a folder of images for each class; given: {path}. The splits "
            f"{_listed(parts)} in {place} have no class folders, as in data sets for detection: put the images of each "
            "class into a folder of its name"
        )
    raise ValueError(
        f"path must be the folder that has the splits; given: {path}. The splits {_listed(parts)} are in {place}: give "
        f"that folder (--data.path {place})"
    )


def _refuse_unclear(path, parts, named):
    """An error where several folders have names of parts, but there are no training images in class folders."""
    if len({*parts.values()}) < 2:
        return
    training = [name for name, part in parts.items() if part == "train"]
    if training:
        own = named[training[0]]
        has = f"{training[0]!r} has {len(own.with_images)} class folders with images"
        has += f" and {len(own.loose)} images beside them" if own.loose else ""
    else:
        has = "there is no folder of training images"
    raise ValueError(
        f"{path} must have a folder of images for each class, or training images in class folders with test images "
        f"beside them; given: {_listed(sorted(parts))}, which are splits by their names, but {has}. If they are "
        "classes, rename them."
    )


def _look_at_classes(path, names):
    """An error where classes look like splits or have splits in them; a note where the same folders are in all."""
    inside = {name: folders_in(path / name, FoundImages()) for name in names}
    for name, own in inside.items():
        parts = {part: each for each in own if (part := part_of(each)) and images_below(path / name / each).files}
        if len(parts) > 1 and "train" in parts:
            raise ValueError(
                f"{path / name} must have the images of one class; given: {_listed(sorted(parts.values()))}, which are "
                f"splits by their names, and would be mixed in the class {name!r}. A data set that is split has the "
                f"folders of its classes in {parts['train']!r}, as {parts['train']}/{name}. If they are no splits, "
                "rename them."
            )
    hinted = [name for name in names if _HINTS.search(name)]
    alike = {name: {*own} for name, own in inside.items() if len(own) > 1}
    for name in hinted:
        for other in alike.keys() - {name}:
            shared = sorted(alike.get(name, set()) & alike[other])
            both = [each for each in shared if all(images_below(path / top / each).files for top in (name, other))]
            if len(both) > 1:
                raise ValueError(
                    f"{path} must be a folder of classes or of splits; given: {_listed(sorted((name, other)))}, which "
                    f"have the same folders in them, {_listed(both)}. They may be splits, whose folders are the "
                    "classes: then call them 'train', 'val' and 'test', and move others away. If they are classes, "
                    "rename them or the folders in them."
                )
    if len(names) > 1 and len(alike) == len(names) and len(shared := sorted(set.intersection(*alike.values()))) > 1:
        return [
            f"each folder in {path} is a class, and the same folders are in all of them: {_listed(shared)}; if these "
            "are the classes, put them into a folder 'train' and one 'test'"
        ]
    return []


def _as_class(name, others):
    beside = _listed([each for each in others if each != name])
    return f"the folder {name!r} is a class here, no part of a split: there are images in {beside} beside it"


def _left_out(own, name):
    if own.with_images:
        return f"the folder {name!r} is left out: it has one class folder only, {own.with_images[0]!r}"
    if not own.loose:
        return f"the folder {name!r} is left out: it has no images"
    return (
        f"the folder {name!r} is left out: its {len(own.loose)} images are in no class folders, so they have no labels"
    )


def _listed(names):
    shown = ", ".join(map(repr, names[:5]))
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _is_loose(entry):
    return not entry.name.startswith(".") and is_image(entry.name) and entry.is_file()
