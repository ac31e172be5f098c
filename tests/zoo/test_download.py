"""Downloads against a server of this process that speaks like the far end, Google Drive's hosts included."""

import contextlib
import errno
import fcntl
import hashlib
import http.server
import os
import signal
import ssl
import subprocess
import sys
import threading
import urllib.parse

import pytest
import trustme

from zoo import download as module
from zoo.download import DownloadError, alone, cache_folder, download, google_drive

pytestmark = pytest.mark.any_backend  # no backend takes part in a download

# 1 MB that begins as a file of PyTorch does, read backwards too.
CONTENT = b"PK\x03\x04" + bytes(range(256)) * 4000 + b"\x04\x03KP"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"
QUOTA = b'<!DOCTYPE html><html><p class="uc-error-subcaption">Too many users have viewed this file</p></html>'
CONFIRM = (
    '<!DOCTYPE html><html><body><form id="download-form" action="https://drive.usercontent.google.com/download" '
    'method="get"><input type="hidden" name="id" value="{id}"><input type="hidden" name="confirm" value="t"></form>'
    "</body></html>"
)
# gdown keeps whole chunks of 512 KiB of what was cut.
GDOWN_RESUMES = "bytes=524288-"
FILE_ID = "1xl6yPojp1rCQ-XOaW36SQoCa53Yiz5aK"


class FarEnd(http.server.ThreadingHTTPServer):
    """Serves `content`; its other attributes say in which way it misbehaves."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.content, self.version, self.requests = CONTENT, '"one"', []
        self.cuts = []  # bytes after which the next answers end
        self.ranges = True
        self.announced = None
        self.page = None  # an HTML page in place of the file
        self.status = None
        self.stall = threading.Event()
        self.stall.set()
        self.certificate = None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_CONNECT(self):
        """A proxy that answers for every host itself, with a certificate for it."""
        self.send_response(200)
        self.end_headers()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.certificate.configure_cert(context)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
        self.close_connection = False
        while not self.close_connection:
            self.handle_one_request()

    def do_GET(self):
        host, url = self.headers.get("Host", ""), urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        self.server.requests.append((host.partition(":")[0], url.path, self.headers.get("Range")))
        if self.server.status is not None:
            self.answer(self.server.status, b"sorry")
        elif self.server.page is not None:
            self.answer(200, self.server.page, {"Content-Type": "text/html; charset=utf-8"})
        elif url.path == "/moved":
            self.answer(302, b"", {"Location": f"{self.server.url}/file"})
        elif host == "drive.google.com":
            target = f"https://drive.usercontent.google.com/download?id={query['id']}&export=download"
            self.answer(303, b"", {"Location": target})
        elif host == "drive.usercontent.google.com" and "confirm" not in query:
            page = CONFIRM.format(id=query["id"]).encode()
            self.answer(200, page, {"Content-Type": "text/html; charset=utf-8"})
        else:
            self.send_file()

    def send_file(self):
        server, begin, status = self.server, 0, 200
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Disposition": 'attachment; filename="model_199.pth"',
            "ETag": server.version,
        }
        asked = self.headers.get("Range")
        if asked and server.ranges and self.headers.get("If-Range") in (None, server.version):
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(server.content):
                return self.answer(416, b"", {"Content-Range": f"bytes */{len(server.content)}"})
            status = 206
            headers["Content-Range"] = f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}"
        self.answer(status, server.content[begin:], headers, cut=server.cuts.pop(0) if server.cuts else None)

    def answer(self, status, body, headers=(), cut=None):
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(self.server.announced or len(body)))
        self.end_headers()
        self.wfile.write(body[:cut])
        if cut is not None or self.server.announced:
            self.wfile.flush()
            self.server.stall.wait(60)
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)


@pytest.fixture
def far_end(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("KERAS_APA_OFFLINE", raising=False)
    server = FarEnd()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.stall.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def authority():
    return trustme.CA()


@pytest.fixture
def drive(far_end, authority, monkeypatch, tmp_path):
    """gdown as it is; only the machine that answers for Google's host names is ours."""
    far_end.certificate = authority.issue_cert("drive.google.com", "drive.usercontent.google.com", "docs.google.com")
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("HTTPS_PROXY", far_end.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    return far_end


@pytest.fixture
def path(tmp_path):
    return tmp_path / "cache" / "weights.pth"


def leftovers(path):
    """What a failed or finished download left, without the lock."""
    return sorted(file.name for file in path.parent.iterdir() if not file.name.endswith(".lock"))


def test_a_redirect_is_followed_and_the_hash_recorded(far_end, path):
    assert download(f"{far_end.url}/moved", path) == path
    assert path.read_bytes() == CONTENT
    assert (path.parent / "weights.pth.sha256").read_text() == f"{SHA256}  weights.pth\n"
    assert leftovers(path) == ["weights.pth", "weights.pth.sha256"]


def test_a_second_call_asks_the_disk_only(far_end, path):
    download(f"{far_end.url}/file", path, sha256=SHA256)
    count = len(far_end.requests)
    download(f"{far_end.url}/file", path)
    assert len(far_end.requests) == count


def test_a_cut_connection_is_resumed_in_the_same_call(far_end, path):
    far_end.cuts = [300_000, 400_000]
    download(f"{far_end.url}/file", path, sha256=SHA256)
    assert [request[2] for request in far_end.requests] == [None, "bytes=300000-", "bytes=700000-"]
    assert path.read_bytes() == CONTENT


def test_the_next_call_goes_on_where_the_last_one_failed(far_end, path):
    far_end.cuts = [300_000, 0]
    with pytest.raises(DownloadError, match="connection was cut .*goes on from it") as error:
        download(f"{far_end.url}/file", path)
    assert f"{far_end.url}/file" in str(error.value) and str(path) in str(error.value)
    assert not path.exists() and ".weights.pth.partial" in leftovers(path)
    download(f"{far_end.url}/file", path)
    assert far_end.requests[-1][2] == "bytes=300000-"
    assert path.read_bytes() == CONTENT
    assert leftovers(path) == ["weights.pth", "weights.pth.sha256"]


def test_the_rest_of_another_version_is_not_appended(far_end, path):
    far_end.cuts = [300_000, 0]
    with pytest.raises(DownloadError):
        download(f"{far_end.url}/file", path)
    far_end.content, far_end.version = CONTENT[::-1], '"two"'
    download(f"{far_end.url}/file", path)
    assert far_end.requests[-1][2] == "bytes=300000-"
    assert path.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_sends_everything_again(far_end, path):
    far_end.cuts, far_end.ranges = [300_000], False
    download(f"{far_end.url}/file", path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_file_is_begun_again(far_end, path):
    path.parent.mkdir()
    (path.parent / ".weights.pth.partial").write_bytes(CONTENT + b"more")
    (path.parent / ".weights.pth.partial.version").write_text(far_end.version)
    download(f"{far_end.url}/file", path, sha256=SHA256)
    assert path.read_bytes() == CONTENT


def test_a_page_instead_of_the_file_is_thrown_away(far_end, path):
    far_end.page = PAGE
    with pytest.raises(DownloadError, match="is an HTML page and not the file.*thrown away"):
        download(f"{far_end.url}/file", path)
    assert leftovers(path) == []


@pytest.mark.parametrize(
    "content", [b"", b'{"error": "quota"}', b"<?xml version='1.0'?><!DOCTYPE html><p>", b"\x1f\x8b\x08"]
)
def test_what_is_no_file_of_weights_is_thrown_away(content, far_end, path):
    far_end.content = content
    with pytest.raises(DownloadError, match="is no file of weights .* thrown away"):
        download(f"{far_end.url}/file", path)
    assert not path.exists() and not path.with_name(f"{path.name}.sha256").exists()


def test_wrong_bytes_are_thrown_away(far_end, path):
    far_end.content = b"x" + CONTENT[1:]
    with pytest.raises(DownloadError, match=f"has the sha256 .*, but {SHA256} is pinned.*thrown away"):
        download(f"{far_end.url}/file", path, sha256=SHA256)
    assert leftovers(path) == []


def test_the_recorded_hash_is_verified_ever_after(far_end, path):
    download(f"{far_end.url}/file", path)
    path.write_bytes(b"x" + CONTENT[1:])
    with pytest.raises(DownloadError, match=f"{SHA256} was recorded in .*Delete it"):
        download(f"{far_end.url}/file", path)
    assert path.exists()  # perhaps the user's own: not ours to delete
    path.unlink()
    far_end.content = b"y" + CONTENT[1:]
    with pytest.raises(DownloadError, match="was recorded in"):
        download(f"{far_end.url}/file", path)
    assert not path.exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_is_said(far_end, path):
    path.parent.mkdir()
    (path.parent / ".weights.pth.partial").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="Cannot write .*weights.pth: the disk is full"):
        download(f"{far_end.url}/file", path)
    assert not path.exists()


def test_a_file_larger_than_the_disk_is_refused_before_it_is_fetched(far_end, path):
    far_end.announced = 10**18
    with pytest.raises(DownloadError, match="the disk is full"):
        download(f"{far_end.url}/file", path)
    assert leftovers(path) == []


def test_an_error_of_the_server_names_link_and_place(far_end, path):
    far_end.status = 404
    with pytest.raises(DownloadError, match="the server answered 404") as error:
        download(f"{far_end.url}/file", path)
    assert f"Fetch {far_end.url}/file yourself and put it at {path}" in str(error.value)


def test_without_a_connection_link_and_place_are_named(far_end, path):
    far_end.shutdown()  # before the close: a loop that still waits on the socket keeps it open
    far_end.server_close()
    with pytest.raises(DownloadError, match="no connection") as error:
        download(f"{far_end.url}/file", path)
    assert f"Fetch {far_end.url}/file yourself and put it at {path}" in str(error.value)
    assert "goes on" not in str(error.value)  # there is nothing to go on from


def test_offline_nothing_is_fetched_and_a_file_put_there_by_hand_is_used(far_end, path, monkeypatch):
    monkeypatch.setenv("KERAS_APA_OFFLINE", "1")
    url = google_drive(FILE_ID)
    with pytest.raises(DownloadError, match="KERAS_APA_OFFLINE is set") as error:
        download(url, path)
    assert f"Fetch {url} yourself and put it at {path}" in str(error.value)
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    assert download(url, path, sha256=SHA256) == path
    assert leftovers(path) == ["weights.pth", "weights.pth.sha256"]
    assert far_end.requests == []


def test_a_folder_that_cannot_be_written_is_said(far_end, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DownloadError, match="Cannot write"):
        download(f"{far_end.url}/file", tmp_path / "cache" / "weights.pth")


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [("file:///etc/passwd", None, "http:// or https://"), ("https://example.org/a", "12", "64 hexadecimal digits")],
)
def test_bad_arguments_are_refused(url, sha256, message, path):
    with pytest.raises(ValueError, match=message):
        download(url, path, sha256)


# The module alone, without Keras: a process starts in no time.
PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("download", {module!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.download({url!r}, {path!r})
"""


def start(url, path):
    program = PROGRAM.format(module=module.__file__, url=url, path=str(path))
    return subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    event = threading.Event()
    for _ in range(1200):
        if condition():
            return
        event.wait(0.05)
    raise AssertionError("did not happen within a minute")


def test_two_processes_at_once_fetch_the_file_once(far_end, path):
    far_end.cuts = [300_000]
    far_end.stall.clear()
    processes = [start(f"{far_end.url}/file", path) for _ in range(2)]
    partial = path.parent / ".weights.pth.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size == module.CHUNK_SIZE)
    far_end.stall.set()
    for process in processes:
        assert process.wait(60) == 0, process.stderr.read()
    assert [request[2] for request in far_end.requests] == [None, "bytes=300000-"]
    assert path.read_bytes() == CONTENT


def test_who_waits_for_another_process_says_so(far_end, path, capsys):
    printed = []
    path.parent.mkdir(exist_ok=True)
    with alone(path.with_name(".weights.pth.lock")) as is_alone:
        assert is_alone
        thread = threading.Thread(target=download, args=[f"{far_end.url}/file", path])
        thread.start()
        wait_for(lambda: printed.append(capsys.readouterr().err) or "waiting for it" in "".join(printed))
        assert "Another process downloads weights.pth; waiting for it" in "".join(printed)
        assert far_end.requests == []
    thread.join()
    assert path.read_bytes() == CONTENT and not path.with_name(".weights.pth.lock").exists()


def test_where_nothing_can_be_locked_each_process_has_a_part_of_its_own(far_end, path, monkeypatch):
    def flock(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    path.parent.mkdir(exist_ok=True)
    of_another = path.with_name(".weights.pth.partial")
    of_another.write_bytes(b"half")
    assert download(f"{far_end.url}/file", path).read_bytes() == CONTENT
    assert of_another.read_bytes() == b"half"


def test_a_killed_download_is_resumed_and_leaves_no_lock(far_end, path):
    far_end.cuts = [300_000]
    far_end.stall.clear()
    process = start(f"{far_end.url}/file", path)
    partial = path.parent / ".weights.pth.partial"
    wait_for(lambda: partial.exists() and partial.stat().st_size == module.CHUNK_SIZE)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    far_end.stall.set()
    download(f"{far_end.url}/file", path, sha256=SHA256)
    assert far_end.requests[-1][2] == f"bytes={module.CHUNK_SIZE}-"


def test_google_drive_is_fetched_through_its_confirmation_page(drive, path):
    download(google_drive(FILE_ID), path, sha256=SHA256)
    assert [request[:2] for request in drive.requests] == [
        ("drive.google.com", "/uc"),
        ("drive.usercontent.google.com", "/download"),
        ("drive.usercontent.google.com", "/download"),
    ]
    assert path.read_bytes() == CONTENT
    assert leftovers(path) == ["weights.pth", "weights.pth.sha256"]


def test_google_drive_is_resumed_when_cut(drive, path):
    drive.cuts = [600_000]
    download(google_drive(FILE_ID), path, sha256=SHA256)
    assert drive.requests[-1][2] == GDOWN_RESUMES


def test_the_next_call_resumes_google_drive(drive, path):
    drive.cuts = [600_000, 0, 0, 0]
    with pytest.raises(DownloadError, match="goes on from it"):
        download(google_drive(FILE_ID), path)
    assert not path.exists()
    drive.requests.clear()
    download(google_drive(FILE_ID), path, sha256=SHA256)
    assert drive.requests[-1][2] == GDOWN_RESUMES
    assert leftovers(path) == ["weights.pth", "weights.pth.sha256"]


def test_google_drive_without_ranges_begins_again(drive, path):
    drive.cuts = [600_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        download(google_drive(FILE_ID), path)
    drive.ranges = False
    download(google_drive(FILE_ID), path, sha256=SHA256)
    assert leftovers(path) == ["weights.pth", "weights.pth.sha256"]


@pytest.mark.parametrize(("page", "message"), [(QUOTA, "Too many users"), (PAGE, "permission")])
def test_a_page_of_google_drive_instead_of_the_file_is_an_error(drive, path, page, message):
    drive.page = page
    with pytest.raises(DownloadError, match=message) as error:
        download(google_drive(FILE_ID), path)
    assert f"Fetch {google_drive(FILE_ID)} yourself and put it at {path}" in str(error.value)
    assert leftovers(path) == []


def test_wrong_bytes_of_google_drive_are_thrown_away(drive, path):
    drive.content = b"x" + CONTENT[1:]
    with pytest.raises(DownloadError, match="is pinned"):
        download(google_drive(FILE_ID), path, sha256=SHA256)
    assert leftovers(path) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs the device that is always full")
def test_a_full_disk_is_said_for_google_drive(drive, path):
    path.parent.mkdir()
    (path.parent / ".weights.pth.partial12345678.part").symlink_to("/dev/full")
    with pytest.raises(DownloadError, match="the disk is full"):
        download(google_drive(FILE_ID), path)
    assert not path.exists()


def test_without_gdown_the_extra_is_named(far_end, path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ImportError, match=r'pip install "keras-apa\[zoo\]"'):
        download(google_drive(FILE_ID), path)


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.delenv("KERAS_APA_CACHE", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".keras" / "keras-apa"
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert cache_folder() == tmp_path / "keras" / "keras-apa"
    monkeypatch.setenv("KERAS_APA_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


def test_a_terminal_sees_a_progress_bar(far_end, path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    far_end.content = CONTENT * 3
    download(f"{far_end.url}/file", path)
    assert "3/3" in capsys.readouterr().out
