"""Image files found by name: below folders and links, without what this project wrote; what is left out is told."""

from __future__ import annotations

import collections
import dataclasses
import glob
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import features

from training.files import OWNER
from zoo.presets import FORMAT as PRESET

# Not every format of Pillow's: PostScript would be run by Ghostscript.
_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "AVIF": (".avif", ".avifs"),
}
# Images that cannot be read (here).
_OTHER_IMAGES = (
    ".heic",
    ".heif",
    ".avif",
    ".avifs",
    ".jxl",
    ".webp",
    ".dng",
    ".cr2",
    ".nef",
    ".arw",
    ".psd",
    ".tga",
    ".svg",
)
_OPTIONAL = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
FORMATS = tuple(name for name in _FORMATS if name not in _OPTIONAL or features.check(_OPTIONAL[name]))
ENDINGS = tuple(ending for name in FORMATS for ending in _FORMATS[name])

# A hidden file in folders that nothing else tells to be of this project.
MARK = ".keras-apa"
_OF_A_RUN = ("figures", "checkpoints", "tensorboard")
_EXPORTED = ("saved_model.pb", "model.onnx", "model.tflite")
_SHOWN = 5
_LISTS = ("files", "left_out", "written", "dangling", "closed", "loops")  # of paths, in `FoundImages`


@dataclasses.dataclass
class FoundImages:
    """What `search_images` finds.

    Attributes:
        files: The image files, each once.
        missing: The reasons why nothing was found, by argument.
        left_out: Files whose ending is not that of an image that can be read here.
        written: Folders that this project wrote.
        dangling: Links that lead nowhere. One with the ending of an image is among the `files`: reading it fails.
        closed: Folders that cannot be read.
        loops: Links to a folder that they lie in.
        linked: Whether a folder or an image was reached through a link.
    """

    files: list[str] = dataclasses.field(default_factory=list)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    written: list[str] = dataclasses.field(default_factory=list)
    dangling: list[str] = dataclasses.field(default_factory=list)
    closed: list[str] = dataclasses.field(default_factory=list)
    loops: list[str] = dataclasses.field(default_factory=list)
    linked: bool = False

    def add(self, other: FoundImages) -> None:
        """Takes up what another search found, but for its reasons."""
        self.linked = self.linked or other.linked
        for name in _LISTS:
            getattr(self, name).extend(getattr(other, name))

    def notes(self) -> list[str]:
        """What was left out, a sentence each.

        >>> found = FoundImages(left_out=["a.heic", "a.txt", "b.HEIC"], written=["photos/runs/folder"])
        >>> print(*found.notes(), sep=chr(10))
        files without the ending of an image that can be read here are left out: 2 .heic, 1 .txt; .heic are images:
        convert them, to JPEG for example
        what keras-apa wrote itself is left out: photos/runs/folder
        """
        notes = []
        if self.left_out:
            endings = collections.Counter(os.path.splitext(file)[1].lower() for file in self.left_out)
            kinds = [f"{count} {ending or 'without an ending'}" for ending, count in endings.most_common()]
            # All of them: a format of images may be the rarest.
            notes.append(f"files without the ending of an image that can be read here are left out: {', '.join(kinds)}")
            if images := [ending for ending in endings if ending in _OTHER_IMAGES]:
                notes[-1] += f"; {', '.join(sorted(images))} are images: convert them, to JPEG for example"
        if self.written:
            notes.append(f"what keras-apa wrote itself is left out: {some(self.written)}")
        if self.dangling:
            notes.append(f"links that lead nowhere are left out: {some(self.dangling)}")
        if self.closed:
            notes.append(f"folders that cannot be read are left out: {some(self.closed)}")
        if self.loops:
            notes.append(f"links to a folder that they lie in are not followed: {some(self.loops)}")
        return notes


def find_images(arguments: Iterable[str | os.PathLike]) -> tuple[list[str], dict[str, str]]:
    """The `files` and the `missing` of `search_images`.

    >>> find_images(["missing.png"])
    ([], {'missing.png': 'no such file, folder or pattern'})
    """
    found = search_images(arguments)
    return found.files, found.missing


def search_images(arguments: Iterable[str | os.PathLike]) -> FoundImages:
    """The files that are meant by names of files, folders and patterns, and what was left out.

    A file is taken whatever its ending; of those that a pattern ending in `*` or `**` stands for, the images are. A
    folder stands for all below it that has the ending of an image, in sorted order, without what is hidden (`.name`)
    and without folders that this project wrote: runs, demos, exports, presets, pictures of detections.
    Links are followed, each folder is taken once. A name that does not exist is a pattern with `*`, `?`, `[...]` and
    `**`; what it stands for is searched in the same way: each folder and each image once, by its own name, and nothing
    that this project wrote.

    Args:
        arguments: Names as given to a command.
    """
    result = FoundImages()
    known: dict[str, bool] = {}
    for argument in (os.fspath(each) for each in arguments):
        found, names = FoundImages(), [argument]
        if not os.path.exists(argument):
            names = _search_pattern(argument, known, found)
        elif os.path.isdir(argument):
            found = images_below(argument)
        else:
            found.files.append(argument)
        if not found.files:
            below = f"no image below it, with the ending {', '.join(ENDINGS)}"
            below += "; what keras-apa wrote itself is left out" if found.written else ""
            result.missing[argument] = below if names or found.written else "no such file, folder or pattern"
        result.add(found)
    for name in _LISTS:  # arguments overlap
        setattr(result, name, _each_once(getattr(result, name)))
    return result


def images_below(folder: str | os.PathLike, seen: set[str] | None = None) -> FoundImages:
    """The images below a folder, in sorted order, and what was left out.

    Folders that are `seen` already, by their real paths, are passed over.
    """
    folder = os.fspath(folder)
    found, links_to_files = FoundImages(linked=os.path.islink(folder)), False
    for _, entries in _walk(folder, found, set() if seen is None else seen):
        for entry in entries:
            if _is_folder(entry):
                continue
            if is_image(entry.name):
                found.files.append(entry.path)
                if entry.is_symlink():
                    found.linked = links_to_files = True
            elif entry.is_symlink() and not os.path.exists(entry.path):
                found.dangling.append(entry.path)
            else:
                found.left_out.append(entry.path)
    if links_to_files:  # to each image once, by its own name if that is here too
        ordered = sorted(found.files, key=lambda file: (os.path.islink(file), file))
        found.files = [*{os.path.realpath(file): file for file in reversed(ordered)}.values()]
    found.files = [str(path) for path in sorted(map(Path, found.files))]
    return found


def _walk(folder: str, found: FoundImages, seen: set[str]) -> Iterator[tuple[str, list[os.DirEntry]]]:
    """`(folder, what it holds)` of a folder and all below it that are to be searched, each real one once."""
    # What is reached without a link comes first: it keeps its name, whatever links there are to it.
    places = collections.deque([folder])
    links: collections.deque[str] = collections.deque()
    while places or links:
        if places:
            place = places.popleft()
        else:
            place = links.popleft()
            if _lies_in(place, os.path.realpath(place)):
                found.loops.append(place)
                continue
            found.linked = True
        if (real := os.path.realpath(place)) in seen:
            continue
        seen.add(real)
        if place != folder and is_written(place):
            found.written.append(place)
            continue
        entries = [*_shown(place, found)]
        for entry in entries:
            if _is_folder(entry):
                (links if entry.is_symlink() else places).append(entry.path)
        yield place, entries


def folders_in(folder: str | os.PathLike, found: FoundImages) -> list[str]:
    """The names of the folders in a folder, sorted, without what is hidden or written by this project.

    What was left out is added to `found`.
    """
    folder, names = os.fspath(folder), []
    for entry in _shown(folder, found):
        if _is_folder(entry):
            if is_written(entry.path):
                found.written.append(entry.path)
            else:
                names.append(entry.name)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            found.dangling.append(entry.path)
    return names


def is_image(name: str) -> bool:
    """Whether a file's name has the ending of an image."""
    return name.lower().endswith(ENDINGS)


def is_written(folder: str | os.PathLike) -> bool:
    """Whether this project wrote a folder: a run or a demo, a preset, a version of an exported model, or a marked one.

    A run folder is one from the moment that a process owns it, which is before it knows the images of its run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "config.json").write_text('{"backend": "torch", "recipes": []}')
    ...     is_written(folder), is_written(Path(folder).parent)
    (True, False)
    """
    folder = Path(folder)
    if (folder / MARK).is_file() or (folder / OWNER).is_file():
        return True
    if folder.name.isdecimal() and any((folder / name).is_file() for name in _EXPORTED):
        return True
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    # A run or a demo; a preset.
    return isinstance(config, dict) and ({"backend", "recipes"} <= config.keys() or config.get("format") == PRESET)


def mark_written(folder: str | os.PathLike) -> None:
    """Marks a folder as written by this project, where nothing that it holds says so."""
    Path(folder, MARK).write_text("Written by keras-apa; its pictures are no images to train on.\n", encoding="utf-8")


def _shown(folder: str, found: FoundImages) -> Iterator[os.DirEntry]:
    """What a folder holds, sorted by name, without what is hidden; of a run without its own folders."""
    try:
        with os.scandir(folder) as unsorted:
            entries = sorted(unsorted, key=lambda entry: entry.name)
    except OSError:
        found.closed.append(folder)
        return
    of_a_run = _OF_A_RUN if any(entry.name == "config.json" for entry in entries) and is_written(folder) else ()
    for entry in entries:
        if entry.name in of_a_run and _is_folder(entry):
            found.written.append(entry.path)
        elif not entry.name.startswith("."):
            yield entry


def _is_of_a_run(folder: str) -> bool:
    """Whether a folder is a run's own, which `_shown` leaves out."""
    path = Path(folder)
    return path.name in _OF_A_RUN and (path.parent / "config.json").exists() and is_written(path.parent)


def _is_folder(entry: os.DirEntry) -> bool:
    # Of a link to itself `is_dir` raises.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _lies_in(link: str, folder: str) -> bool:
    """Whether a link lies somewhere in a folder."""
    parent = os.path.realpath(os.path.dirname(link) or ".")
    return parent == folder or parent.startswith(os.path.join(folder, ""))


def _search_pattern(pattern: str, known: dict[str, bool], found: FoundImages) -> list[str]:
    """Adds what a pattern stands for to `found`, and returns the names of its matches that this project did not write.

    `known` are folders of which it is known whether this project wrote them.
    """
    root = pattern
    while glob.has_magic(root):
        root = os.path.dirname(root)
    own = _OwnNames(root)
    names = []
    for name in sorted({name.rstrip(os.sep) for name in _matches(pattern, found)}, key=own.order):
        if (written := _written_around(name, pattern, known)) is None:
            names.append(name)
        else:
            found.written.append(written)
    any_name = os.path.basename(pattern) in ("*", "**")
    seen: set[str] = set()
    for name in names:
        if os.path.isdir(name):
            if os.path.islink(name) and _lies_in(name, os.path.realpath(name)):
                found.loops.append(name)
            else:
                found.add(images_below(name, seen))
        elif any_name and not is_image(name):
            (found.left_out if os.path.exists(name) else found.dangling).append(name)
        else:
            found.files.append(name)
    once = {own.real(file): file for file in sorted(found.files, key=own.order, reverse=True)}
    found.files = [str(path) for path in sorted(map(Path, once.values()))]
    return names


def _matches(pattern: str, found: FoundImages) -> Iterator[str]:
    """What a pattern matches. Unlike those of `glob`, its `**` enters each real folder once, wherever links lead."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.glob(pattern)
        return
    start = parts.index("**")
    base = os.sep.join(parts[:start]) or (os.sep if start else "")
    after = [part for part in parts[start + 1 :] if part]
    while after and after[0] == "**":
        del after[0]
    rest = os.sep.join(after)
    for folder in filter(os.path.isdir, glob.glob(base) if base else [os.curdir]):
        if not rest:
            yield folder  # for all below it
            continue
        for place, _ in _walk(folder, found, set()):
            if not base:
                place = place.removeprefix(os.curdir).removeprefix(os.sep)
            yield from _matches(os.path.join(glob.escape(place), rest), found)


class _OwnNames:
    """Tells which of the names below `root` lead through links, and to what; a folder is looked at once."""

    def __init__(self, root: str):
        self.root = root or os.curdir
        self.real_root = os.path.realpath(self.root)
        self._folders: dict[str, tuple[str, bool]] = {}

    def _folder(self, name):
        folder = os.path.dirname(name)
        if folder not in self._folders:
            real = os.path.realpath(folder or os.curdir)
            plain = os.path.normpath(os.path.join(self.real_root, os.path.relpath(folder or os.curdir, self.root)))
            self._folders[folder] = real, real != plain
        return self._folders[folder]

    def order(self, name: str) -> tuple[bool, str]:
        """A key to sort by: what is reached without a link comes first."""
        return self._folder(name)[1] or os.path.islink(name), name

    def real(self, name: str) -> str:
        return os.path.realpath(name) if os.path.islink(name) else os.path.join(self._folder(name)[0], Path(name).name)


def _written_around(name: str, pattern: str, known: dict[str, bool]) -> str | None:
    """The folder written by this project that a match of a pattern lies in, below what the pattern names in letters."""
    fixed = next((place for place, part in enumerate(Path(pattern).parts) if glob.has_magic(part)), 0)
    parts = Path(name).parts
    for end in range(fixed + 1, len(parts) + 1):
        folder = str(Path(*parts[:end]))
        if end == len(parts) and not os.path.isdir(folder):
            return None
        if folder not in known:
            known[folder] = is_written(folder) or _is_of_a_run(folder)
        if known[folder]:
            return folder
    return None


def _each_once(paths: list[str]) -> list[str]:
    """The paths without those that are an earlier one in another spelling, such as `./photos`."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(os.path.abspath(path), path)
    return list(first.values())


def some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    others = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + others
