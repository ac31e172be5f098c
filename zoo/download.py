"""Files from the network, fetched once: interrupted downloads resume, and every file is verified and complete."""

import contextlib
import errno
import glob
import hashlib
import http.client
import os
import re
import secrets
import shutil
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

TIMEOUT = 60  # seconds without a byte
CHUNK_SIZE = 2**18
MEGABYTE = 10**6
# Of a lock on a file system that has none, as some network mounts.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


class DownloadError(RuntimeError):
    """A file could not be fetched or has the wrong contents; the message says what to do."""


def google_drive(identifier):
    """The link of a file on Google Drive.

    >>> google_drive("1xl6yPojp1rCQ-XOaW36SQoCa53Yiz5aK")
    'https://drive.google.com/uc?id=1xl6yPojp1rCQ-XOaW36SQoCa53Yiz5aK'
    """
    return f"https://drive.google.com/uc?id={identifier}"


def cache_folder():
    """The folder of downloads: `KERAS_APA_CACHE`, else `KERAS_HOME/keras-apa`, else `~/.keras/keras-apa`."""
    if os.environ.get("KERAS_APA_CACHE"):
        return Path(os.environ["KERAS_APA_CACHE"]).expanduser()
    if os.environ.get("KERAS_HOME"):
        return Path(os.environ["KERAS_HOME"]).expanduser() / "keras-apa"
    home = os.path.expanduser("~")
    # As Keras does where the home folder is read-only.
    return Path(home if os.access(home, os.W_OK) else tempfile.gettempdir()) / ".keras" / "keras-apa"


def is_offline():
    """Whether `KERAS_APA_OFFLINE` forbids the network."""
    return os.environ.get("KERAS_APA_OFFLINE", "").lower() not in ("", "0", "false", "no", "off")


def download(url, path, sha256=None):
    """Fetch `url` to `path` unless it is there, and verify it.

    The first download writes the file's hash to `PATH.sha256` (in the form of `sha256sum`), and from then on the file
    has to match it. If you put a file at `path` yourself, it is accepted and its hash is recorded.

    An interrupted download is kept beside `path`, and the next attempt or call resumes it. If two processes ask for
    the same file at once, one fetches it and the other waits. With `KERAS_APA_OFFLINE=1` nothing is fetched.

    Args:
        url: An `http://` or `https://` link. Google Drive is read through gdown, which knows its confirmation pages.
        path: The file to create. Its folder is created too.
        sha256: The hash that the file must have, 64 hexadecimal digits, if it is known.

    Returns:
        `path`, a `pathlib.Path`.

    Raises:
        DownloadError: If there is no connection, if the answer is not a file of weights (but an HTML page), if the
            hash is wrong, or if the disk is full. There is then nothing at `path`, or the file that was there before.
        ImportError: If gdown is needed and not installed.
        ValueError: If the link or the hash is of another kind.

    >>> import os, pathlib, tempfile
    >>> from zoo.download import download
    >>> path = pathlib.Path(tempfile.mkdtemp(), "weights.pth")
    >>> _ = path.write_bytes(b"fetched by hand")
    >>> download("https://example.org/weights.pth", path) == path
    True
    >>> sorted(os.listdir(path.parent))
    ['weights.pth', 'weights.pth.sha256']
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        raise ValueError(f"sha256 must be 64 hexadecimal digits or None; given: {sha256!r}.")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url must start with http:// or https://; given: {url!r}.")
    path = Path(path)
    if path.is_file():
        _accept(path, path, sha256)
        return path
    if is_offline():
        raise DownloadError(f"{path.name} is not in the cache and KERAS_APA_OFFLINE is set. {_by_hand(url, path)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f".{path.name}.lock")
        with alone(lock, f"Another process downloads {path.name}; waiting for it") as is_alone:
            if not path.is_file():  # else another process was faster
                # Without a lock, a partial file for each process; it is not resumed by the next one.
                partial = path.with_name(f".{path.name}.{'' if is_alone else f'{secrets.token_hex(4)}.'}partial")
                _fetch(url, partial, path)
                _accept(partial, path, sha256)
            else:
                _accept(path, path, sha256)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full; what is there is kept" if full else error.strerror or str(error)
        raise DownloadError(f"Cannot write {path}: {reason}.") from error
    return path


def _by_hand(url, path):
    return f"Fetch {url} yourself and put it at {path}"


@contextlib.contextmanager
def alone(path, waiting=""):
    """Holds a lock on the file `path`, which goes when the block ends, or the process, however it ends.

    Args:
        path: A file beside what the block writes, in a folder that is there.
        waiting: What to say on stderr while another process has the lock.

    Yields: False if the file system has no locks and the block is not alone for sure.
    Raises: OSError: The file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if waiting:
                print(waiting, file=sys.stderr)
            lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            with contextlib.suppress(OSError):  # Windows removes no open file; releasing the lock does
                os.unlink(path)
            lock.release()


def _accept(file, path, sha256):
    """Moves `file` to `path` if its content is right; a wrong one is deleted unless it was there before."""
    record = path.with_name(f"{path.name}.sha256")
    recorded = record.read_text(encoding="utf-8", errors="replace").split()[:1] if record.is_file() else []
    expected = (sha256 or "".join(recorded)).lower()
    digest = _sha256(file)
    problem = None
    if _is_html(file):
        problem = "is an HTML page and not the file (a login, a quota or an error page)"
    elif file != path and not expected and not _is_weights(file):
        problem = "is no file of weights (neither PyTorch's, nor safetensors, nor HDF5), as far as its first bytes tell"
    elif expected and digest != expected:
        source = "is pinned" if sha256 else f"was recorded in {record}"
        problem = f"has the sha256 {digest}, but {expected} {source}"
    if problem and file == path:
        raise DownloadError(f"{path} {problem}. Delete it (and {record.name} beside it) to fetch it again.")
    if problem:
        file.unlink()
        raise DownloadError(f"What was downloaded for {path} {problem}. It was thrown away.")
    if not recorded:
        try:
            temporary = record.with_name(f".{secrets.token_hex(4)}-{record.name}")
            temporary.write_text(f"{digest}  {path.name}\n", encoding="utf-8", errors="surrogateescape")
            os.replace(temporary, record)
        except OSError:
            # A cache that others may only read works without the record.
            if file != path:
                raise
    if file != path:
        os.replace(file, path)


def _sha256(path):
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is_html(path):
    with open(path, "rb") as stream:
        start = stream.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def _is_weights(path):
    """Whether a file begins as those that hold tensors do: zip, pickle, HDF5, or the header of safetensors."""
    with open(path, "rb") as stream:
        start = stream.read(16)
    is_safetensors = start[8:9] == b"{" and start[7:8] == b"\0"
    return start.startswith((b"PK\x03\x04", b"\x80", b"\x89HDF\r\n")) or is_safetensors


class _Progress:
    """Shows how far a download is, and stops one that the disk has no room for before it starts."""

    def __init__(self, folder):
        self.folder, self.bar, self.started = folder, None, False

    def __call__(self, done, total):
        if not self.started:
            self.started = True
            if total is not None and total - done > shutil.disk_usage(self.folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sys.stdout.isatty():
                import keras

                self.bar = keras.utils.Progbar(total and max(total // MEGABYTE, 1), unit_name="MB")
        if self.bar is not None:
            self.bar.update(max(done // MEGABYTE, 1) if done == total else done // MEGABYTE)


def _fetch(url, partial, path):
    """The whole content of `url` at `partial`, going on from what is there."""
    print(f"Downloading {url} to {path}", file=sys.stderr)
    host = urllib.parse.urlsplit(url).hostname
    fetch = _fetch_from_google_drive if host in ("drive.google.com", "docs.google.com") else _fetch_by_http
    try:
        fetch(url, partial, _Progress(path.parent))
    except ImportError as error:
        raise ImportError(
            f'Google Drive needs gdown: pip install "keras-apa[zoo]". Or: {_by_hand(url, path)}'
        ) from error
    except _Failure as error:
        # Without a version that the server names, the part that is there cannot be trusted to be of the same file.
        named = fetch is not _fetch_by_http or partial.with_name(f"{partial.name}.version").exists()
        begun = named and any(path.parent.glob(f"{glob.escape(partial.name)}*"))
        kept = " What is there is kept, and the next call goes on from it." if begun else ""
        raise DownloadError(f"Cannot download {path.name}: {error}.{kept} {_by_hand(url, path)}") from error


class _Failure(Exception):
    """The far end's fault, in words."""


def _fetch_by_http(url, partial, progress):
    best = partial.stat().st_size if partial.exists() else 0
    while True:
        try:
            return _get(url, partial, progress)
        except urllib.error.HTTPError as error:
            raise _Failure(f"the server answered {error.code} ({error.reason})") from error
        except urllib.error.URLError as error:
            raise _Failure(f"no connection ({error.reason})") from error
        except (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException) as error:
            reached = partial.stat().st_size if partial.exists() else 0
            # Again at once, as long as each attempt gets further.
            if reached <= best:
                raise _Failure(f"the connection was cut ({error})") from error
            best = reached
            time.sleep(0.1)


def _get(url, partial, progress):
    """One request, for what `partial` lacks if the server still has the version that it began with."""
    version = partial.with_name(f"{partial.name}.version")
    done = partial.stat().st_size if partial.exists() and version.exists() else 0
    headers = {"User-Agent": "keras-apa", "Accept-Encoding": "identity"}
    if done:
        headers |= {"Range": f"bytes={done}-", "If-Range": version.read_text(encoding="utf-8")}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not done:
            raise
        partial.unlink()  # more than the server has: begin again
        return _get(url, partial, progress)
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise _Failure(f"the server sent another range than asked for ({response.headers.get('Content-Range')})")
        length = response.headers.get("Content-Length", "")
        total = done + int(length) if length.isdecimal() else None
        tag = response.headers.get("ETag", "")
        tag = tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified", "")
        progress(done, total)
        if tag:
            version.write_text(tag, encoding="utf-8")
        else:
            version.unlink(missing_ok=True)
        with open(partial, "ab" if done else "wb") as stream:
            while chunk := response.read(CHUNK_SIZE):
                stream.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"after {done} of {total} bytes")
    version.unlink(missing_ok=True)


def _fetch_from_google_drive(url, partial, progress):
    import gdown
    import requests
    from gdown.exceptions import DownloadError as GdownError

    while True:
        before = _gdown_part(partial)
        try:
            gdown.download(
                url,
                str(partial),
                quiet=True,
                use_cookies=False,
                resume=True,
                retries=3,
                timeout=TIMEOUT,
                progress=progress,
            )
            return
        except (GdownError, requests.exceptions.RequestException) as error:
            if "requested byte range" in str(error) and before is not None:
                before.unlink(missing_ok=True)  # of another version: begin again
                continue
            raise _Failure(" ".join(str(error).split())) from error


def _gdown_part(partial):
    """The file in which gdown keeps what it has: the output's name, eight characters, `.part`."""
    parts = sorted(
        partial.parent.glob(f"{glob.escape(partial.name)}????????.part"), key=lambda part: part.lstat().st_size
    )
    for part in parts[:-1]:  # gdown refuses to choose
        part.unlink()
    return parts[-1] if parts else None
