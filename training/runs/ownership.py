"""A folder has one owner: a lock that ends with its process, and an owner that notices when the folder is lost."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import secrets
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.files import LOCK, MARKER, OWNER, is_empty, make_writable, numbered_folders, write_json

# Of a lock on a file system that has none, as some network mounts; `zoo.download`, which imports Keras, has it too.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)
_ATTEMPTS = 3


class InUseError(ValueError):
    """The folder belongs to somebody else; `holder` says to whom and since when."""

    def __init__(self, folder: Path, option: str = "--output"):
        self.holder = _holder(folder)
        marker = folder / MARKER
        # Only its own machine can see that the process of a marker is dead.
        remove = f"; if that process is gone, remove {str(marker)!r}" if marker.exists() else ""
        super().__init__(
            f"{option} {str(folder)!r} is in use by {self.holder}; wait until it ends, or name another folder{remove}"
        )


class FolderLostError(RuntimeError):
    """The folder was removed, renamed or taken over while something was written to it; says where the rest is."""


class OwnedFolder:
    """A folder that belongs to this process until `release`, the end of the `with` block, or the end of the process.

    Made by `claim`. `training.files.LOCK_FILES` in it tell other processes. Reading is free for everybody.

    Attributes:
        given: The folder as `claim` got it, for messages.
        path: The folder, absolute.
        note: What to tell the user about the owner before, or None.
    """

    def __init__(self, path: Path, lock: Any, created: list[Path], note: str | None):
        self.given = path
        self.path = path.resolve()
        self.note = note
        self._lock = lock
        self._created = created
        self._token = secrets.token_hex(16)
        self._config: Mapping[str, Any] | None = None
        self._rescue: OwnedFolder | None = None
        since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": since, "token": self._token}
        write_json(self.path / OWNER, owner)
        self._file = (self.path / LOCK).stat()

    def __enter__(self) -> OwnedFolder:
        return self

    def __exit__(self, *error) -> None:
        self.release()

    def begin(self, name: str, config: Mapping[str, Any]) -> None:
        """Writes the file that makes it a run folder: until then, `release` leaves nothing behind."""
        write_json(self.path / name, config)
        self._config = {name: config}

    def release(self) -> None:
        """Gives the folder back, without a trace of the lock, or of the folder if no run has begun in it."""
        if self._rescue is not None:
            self._rescue.release()
        with contextlib.suppress(OSError):
            if self.is_ours():
                for name in (OWNER, LOCK):
                    (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._lock.release()
        if self._config is None:
            for path in reversed(self._created):
                with contextlib.suppress(OSError):  # somebody has put something into it
                    path.rmdir()

    def is_ours(self) -> bool:
        """Whether the folder at `path` is still the one that was claimed.

        Its owner's file tells: the folder may have been removed or renamed, and another put in its place; or the lock
        was removed by hand, or is none on this file system, and another process has taken the folder.
        """
        if self._rescue is not None:
            return False
        try:
            return _read_owner(self.path)["token"] == self._token
        except (FileNotFoundError, NotADirectoryError, KeyError, TypeError, ValueError):
            # That file alone is gone or damaged: the lock's file is the same one as long as nobody has replaced it.
            with contextlib.suppress(OSError):
                return os.path.samestat((self.path / LOCK).stat(), self._file)
            return False
        except OSError:
            return True  # a network's disk that is away for a moment; whoever writes will see the error

    @property
    def is_lost(self) -> bool:
        """Whether `place` had to make another folder, which may be at the same path if the first is gone."""
        return self._rescue is not None

    def place(self) -> Path:
        """Where to save: the folder, or if it is lost a new one beside it, which gets its configuration.

        Raises: OSError: There is no place to write to.
        """
        if self.is_ours():
            return self.path
        if self._rescue is None:
            self._reason = self._loss()
            self._rescue = self._beside()
            for name, config in (self._config or {}).items():
                self._rescue.begin(name, config)
        return self._rescue.path

    def check(self, saved: str) -> None:
        """Raises `FolderLostError` if the folder `is_lost`.

        Args:
            saved: What is in the other folder.
        """
        if self._rescue is not None:
            raise FolderLostError(f"{self._reason}; {saved} in {str(self._rescue.path)!r}")

    def _loss(self) -> str:
        folder = f"the run folder {str(self.path)!r}"
        if not self.path.exists():
            return f"{folder} was removed or renamed while it was in use"
        if (self.path / OWNER).is_file():
            return f"{folder} was taken over by {_holder(self.path)}"
        return f"{folder} is not the one that was begun: it or its lock was replaced while it was in use"

    def _beside(self) -> OwnedFolder:
        error: Exception | None = None
        for parent in (self.path.parent, Path.cwd(), Path(tempfile.gettempdir())):
            try:
                return claim_free(parent / self.path.name)
            except (OSError, ValueError) as reason:
                error = reason
        raise OSError(errno.EROFS, f"{self._loss()}, and there is no other place to save to ({error})")


def claim(folder: Path, option: str = "--output") -> OwnedFolder:
    """Makes `folder` and takes it for this process.

    A process that ends, however it ends, holds nothing: the system drops its lock. A network file system passes locks
    on to other machines, or has none. Then a file says which process of which machine holds the folder; a dead process
    of this machine is overruled.

    Args:
        folder: The folder, which may be there.
        option: What the errors call it.

    Raises:
        InUseError: Another process has it.
        ValueError: It cannot be written.
    """
    created: list[Path] = []
    for _ in range(_ATTEMPTS):
        created += [each for each in _missing(folder.absolute()) if each not in created]
        make_writable(folder, option)
        try:
            lock = _try_lock(folder)
        except FileNotFoundError:
            continue  # another process has just given the folder back, and removed what it had made
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(
                f"{option} must be a folder that can be written to; given: {str(folder)!r} ({reason}). Choose another "
                "one."
            ) from error
        if lock is None:
            if (folder / OWNER).is_file():
                break
            continue
        try:
            return OwnedFolder(folder, lock, created, _unclean_end(folder))
        except BaseException:
            lock.release()
            raise
    raise InUseError(folder, option)


def claim_free(stem: Path) -> OwnedFolder:
    """Takes the first of `stem`, `stem-2`, `stem-3`, ... that is absent or empty and that nobody else has.

    Raises: ValueError: It cannot be written.
    """
    for folder in numbered_folders(stem):
        if folder.exists() and not is_empty(folder):
            continue
        try:
            owned = claim(folder)
        except InUseError:
            continue
        if is_empty(folder):
            return owned
        owned.release()  # another process has just been here
    raise AssertionError("numbers do not end")


def _try_lock(folder: Path) -> Any:
    """A lock that is held, None if it is somebody else's."""
    from filelock import FileLock, SoftFileLock, Timeout

    lock = FileLock(folder.absolute() / LOCK, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        return None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    lock = SoftFileLock(folder.absolute() / MARKER, thread_local=False)
    try:
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        return None


def _missing(path: Path) -> list[Path]:
    """Those of the folder and its parents that are not there, outermost first."""
    return [each for each in (path, *path.parents) if not each.exists()][::-1]


def _read_owner(folder: Path) -> dict[str, Any]:
    return json.loads((folder / OWNER).read_text(encoding="utf-8"))


def _holder(folder: Path) -> str:
    """`process 12 since ...`, with the machine if it is another; as far as it is known."""
    try:
        owner = _read_owner(folder)
        since = datetime.datetime.fromisoformat(owner["since"]).astimezone()
        machine = "" if owner["host"] == socket.gethostname() else f" on {owner['host']}"
        return f"process {owner['process']}{machine} since {since:%Y-%m-%d %H:%M:%S}"
    except (OSError, KeyError, TypeError, ValueError):
        return "another process"


def _unclean_end(folder: Path) -> str | None:
    """A line if the owner before was on another machine and has not given the folder back.

    It was killed there, or it is at work and this file system keeps the lock of each machine to itself.
    """
    try:
        elsewhere = _read_owner(folder)["host"] != socket.gethostname()
    except (OSError, KeyError, TypeError, ValueError):
        return None
    if not elsewhere:
        return None
    holder = _holder(folder)
    return f"{folder} was last used by {holder}, which did not release it; if it still runs, stop one of the two"
