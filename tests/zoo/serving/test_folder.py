"""Versions of an exported model: numbers, exports at once, exports that fail."""

import os
import threading

import pytest

from zoo.serving.folder import write_version

pytestmark = pytest.mark.any_backend


def test_versions_count_on_and_a_given_one_is_kept(tmp_path):
    def write(path):
        assert not path.name.isdecimal() and path.parent == tmp_path / "a" / "birds"
        (path / "file").touch()

    name = tmp_path / "a" / "birds"
    assert write_version(name, write) == name / "1"
    assert write_version(name / "7", write) == name / "7"
    assert write_version(str(name), write) == name / "8"
    with pytest.raises(ValueError, match=r"version must be new; given: 7, which exists in .*birds'. Give another"):
        write_version(name / "7", write)
    with pytest.raises(ValueError, match="version must be new; given: 007, which exists"):
        write_version(name / "007", write)
    assert sorted(path.name for path in name.iterdir()) == ["1", "7", "8"]
    # Whoever serves it is another user than who exported it.
    assert os.stat(name / "1").st_mode == os.stat(name).st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_export_leaves_nothing(tmp_path, error):
    def write(path):
        (path / "half").touch()
        raise error

    (tmp_path / "kept").mkdir()
    for name in ("new/birds", "kept", "kept/3"):
        with pytest.raises(error):
            write_version(tmp_path / name, write)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"] and not list((tmp_path / "kept").iterdir())


def test_exports_at_once_get_versions_of_their_own(tmp_path):
    barrier, paths = threading.Barrier(8), []

    def write(path):
        (path / "file").touch()
        barrier.wait()

    threads = [threading.Thread(target=lambda: paths.append(write_version(tmp_path, write))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in paths) == [str(i) for i in range(1, 9)]


def test_of_two_exports_of_one_version_at_once_one_is_refused(tmp_path):
    barrier, results = threading.Barrier(2), []

    def write(path):
        (path / "file").write_text(path.name)
        barrier.wait()

    def export_version():
        try:
            results.append(write_version(tmp_path / "3", write).name)
        except ValueError as error:
            results.append(str(error).partition(" in ")[0])

    threads = [threading.Thread(target=export_version) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["3", "version must be new; given: 3, which exists"]
    assert [path.name for path in tmp_path.iterdir()] == ["3"] and len(list((tmp_path / "3").iterdir())) == 1


def test_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to '.*file/birds'"):
        write_version(tmp_path / "file" / "birds", lambda path: None)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    root = os.geteuid() == 0
    try:
        if root:  # who may write everywhere
            os.chmod(tmp_path, 0o755)
            for parent in tmp_path.parents[:3]:
                os.chmod(parent, os.stat(parent).st_mode | 0o055)
            os.seteuid(65534)
        with pytest.raises(ValueError, match=r"cannot write to '.*closed': Permission denied"):
            write_version(closed, lambda path: None)
    finally:
        if root:
            os.seteuid(0)
