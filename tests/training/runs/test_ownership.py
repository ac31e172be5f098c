"""Who a folder belongs to, what ends with a process that is killed, and what an owner does that has lost its folder."""

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import keras
import pytest

from training.cli.main import main
from training.cli.train import _differs_from
from training.engine.callbacks import TensorBoardLog
from training.files import atomic_path, existing_folders, last_numbered_folder
from training.recipes import get_recipe
from training.runs.folder import (
    CHECKPOINTS,
    OwnedCheckpoints,
    claim_run_folder,
    different_settings,
    open_run_folder,
    read_config,
)
from training.runs.ownership import FolderLostError, InUseError, claim, claim_free

pytestmark = pytest.mark.any_backend

# Takes a folder, says so, and sleeps, with a child that outlives it. It needs no Keras.
OWNER = """
import subprocess, sys, time
from pathlib import Path
{before}
from training.runs.ownership import claim
owned = claim(Path(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
NO_LOCKS = """
import errno, fcntl
def flock(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


def killed_owner(folder, before=""):
    """The number of a process that took the folder and was killed, and what `claim` said while it lived."""
    program = OWNER.format(before=before)
    process = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(InUseError) as error:
            claim(folder)
        process.kill()
        process.wait(60)
        claim(folder).release()
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
    return process.pid, str(error.value)


def config(**changes):
    return {"recipes": [get_recipe("digits10_lt_baseline").replace(**changes).to_dict()], "backend": "jax"}


def different(**changes):
    """What tells in which settings a run is another than that of `config(**changes)`."""
    return lambda earlier: different_settings(earlier, config(**changes))


def begun(folder, *, checkpoint=True, **changes):
    """The folder of a run that was given back."""
    with open_run_folder(folder, config(**changes), default=folder) as owned:
        if checkpoint:
            (owned.path / CHECKPOINTS).mkdir()
            (owned.path / CHECKPOINTS / "step-0000000002.npz").touch()
    return folder


def chosen(stem, overwrite=False, **changes):
    """The default folder that a training of these settings takes, by its name, and the line about it."""
    owned, line = claim_run_folder(None, stem, different(**changes), overwrite=overwrite)
    with owned:
        return owned.path.name, line


def test_a_folder_belongs_to_one_and_is_given_back_without_a_trace(tmp_path):
    with claim(tmp_path / "runs" / "a") as owned:
        assert owned.is_ours() and owned.note is None
        with pytest.raises(
            InUseError, match=rf"in use by process {os.getpid()} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d; "
        ):
            claim(tmp_path / "runs" / "a")
        assert owned.is_ours()
    assert not any(tmp_path.iterdir())
    (tmp_path / "mine.txt").touch()
    claim(tmp_path).release()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_killed_process_had_is_free_at_once(tmp_path):
    process, said = killed_owner(tmp_path / "run")
    assert f"is in use by process {process} since" in said


def test_without_locks_of_the_file_system_a_killed_process_holds_nothing_either(tmp_path, monkeypatch):
    def flock(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    process, said = killed_owner(tmp_path / "run", NO_LOCKS)
    assert f"is in use by process {process} since" in said and ".lock.held'" in said
    with claim(tmp_path / "run") as owned:
        assert owned.is_ours()
    assert not list((tmp_path / "run").glob(".*"))


def test_an_owner_on_another_machine_is_named(tmp_path):
    with claim(tmp_path / "run") as owned:
        record = json.loads((owned.path / ".owner.json").read_text())
        (owned.path / ".owner.json").write_text(json.dumps({**record, "host": "node7", "process": 12}))
        with pytest.raises(InUseError, match="in use by process 12 on node7 since"):
            claim(tmp_path / "run")
    # One that did not give the folder back was killed, or is at work where this machine cannot see its lock.
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".owner.json").write_text(json.dumps({**record, "host": "node7", "process": 12}))
    with claim(tmp_path / "run") as second:
        assert "last used by process 12 on node7 since" in second.note


def test_a_folder_is_lost_when_it_is_removed_replaced_or_taken_over(tmp_path):
    owned = claim(tmp_path / "run")
    owned.begin("config.json", {"a": 1})
    (owned.path / ".lock").unlink()
    assert owned.is_ours()  # by hand, and nobody has taken it
    (owned.path / ".lock").touch()
    (owned.path / ".owner.json").unlink()
    assert not owned.is_ours()  # taken and given back by another process meanwhile
    for do, reason in (
        (lambda path: shutil.rmtree(path), "was removed or renamed"),
        (lambda path: path.rename(tmp_path / "renamed"), "was removed or renamed"),
        (lambda path: (path.rename(tmp_path / "old"), path.mkdir(), (path / "a").touch()), "is not the one"),
        (lambda path: ((path / ".lock").unlink(), claim(path)), f"was taken over by process {os.getpid()} since"),
    ):
        owned = claim_free(tmp_path / "lost")
        owned.begin("config.json", {"a": 1})
        path = owned.path
        kept = do(path)  # a second owner is one as long as somebody keeps it
        before = sorted(path.rglob("*")) if path.exists() else None
        place = owned.place()
        assert json.loads((place / "config.json").read_text()) == {"a": 1} and owned.place() == place
        with pytest.raises(FolderLostError, match=rf"{reason}.*; all is saved in '{re.escape(str(place))}'"):
            owned.check("all is saved")
        assert before is None or (place != path and sorted(path.rglob("*")) == before)
        owned.release()
        del kept


def test_a_named_folder_in_use_is_refused_by_every_command(tmp_path, capsys):
    begun(tmp_path / "run")
    with claim(tmp_path / "run"):
        for command in (
            ["train", "digits10_lt_baseline"],
            ["train", "digits10_lt_baseline", "--overwrite"],
            ["train", "digit_scenes_lt"],
            ["demo", "--data", "digits10_lt", "--overwrite"],
        ):
            assert main([*command, "--output", str(tmp_path / "run"), "--backend", keras.backend.backend()]) == 2
            assert f"run' is in use by process {os.getpid()} since" in capsys.readouterr().err
    assert read_config(tmp_path / "run")["backend"] == "jax"


def test_a_default_folder_in_use_is_left_alone(tmp_path):
    stem = tmp_path / "digits"
    begun(stem, checkpoint=False)  # not begun: the moment in which another training took it over
    with claim(stem):
        name, line = chosen(stem, seed=1)
        assert name == "digits-2"
        assert re.fullmatch(r".*digits' is in use by process \d+ since .*; this training is in '.*digits-2'", line)
        with claim(tmp_path / "digits-2"):
            assert chosen(stem)[0] == "digits-3"
            demo = open_run_folder(None, config(), default=stem)
            assert demo.path.name == "digits-3"
            demo.release()
    assert chosen(stem, seed=1) == ("digits", None)  # free again, and nothing would be lost


def test_a_default_folder_with_another_run_is_left_alone_and_each_command_finds_its_own(tmp_path):
    stem = begun(tmp_path / "digits")
    for number, changes in enumerate(({"seed": 1}, {"data": {"imbalance_factor": 7.0}}, {"epochs": 3}), start=2):
        name, line = chosen(stem, **changes)
        assert name == f"digits-{number}" and "digits' holds another run (" in line and " was " in line
        begun(tmp_path / name, **changes)
    assert chosen(stem) == ("digits", None)
    assert chosen(stem, data={"imbalance_factor": 7.0})[0] == "digits-3"
    # Also if those before it are gone, and a folder without a run stands there.
    shutil.rmtree(stem)
    assert chosen(stem, epochs=3) == ("digits-4", f"This training is in {str(tmp_path / 'digits-4')!r}")
    stem.mkdir()
    (stem / "notes.txt").touch()
    shutil.rmtree(tmp_path / "digits-2")
    name, line = chosen(stem, seed=9)
    assert name == "digits-2" and "is not empty and holds no run; this" in line
    assert [path.name for path in existing_folders(stem)] == ["digits", "digits-3", "digits-4"]


@pytest.mark.parametrize(
    "contents",
    [
        {"recipes": None},
        {"recipes": ["digits10_lt"]},
        {"recipes": [{"name": "folder"}], "chosen": {"epochs": "many"}},
        {"recipes": [{"name": "folder"}], "chosen": {"model.size": 3}},
    ],
)
def test_a_default_folder_with_settings_that_are_none_here_is_left_alone(tmp_path, contents):
    stem = begun(tmp_path / "folder")
    (stem / "config.json").write_text(json.dumps({"backend": keras.backend.backend(), **contents}))
    owned, line = claim_run_folder(None, stem, _differs_from(get_recipe("folder"), []))
    with owned:
        assert owned.path.name == "folder-2" and ("holds no run" in line or "holds another run" in line)


def test_that_the_own_run_is_at_work_in_another_default_folder_is_told(tmp_path):
    stem = begun(tmp_path / "digits")
    with claim(begun(tmp_path / "digits-2", seed=1)):
        name, line = chosen(stem, seed=1)
        assert name == "digits-3" and re.search(r"holds another run .*; .*digits-2' is in use by process \d+", line)
        shutil.rmtree(stem)
        name, line = chosen(stem, seed=1)
        assert name == "digits" and line is None


def test_overwrite_replaces_the_own_run_of_the_default_folders_only(tmp_path):
    stem = begun(tmp_path / "digits")
    begun(tmp_path / "digits-2", seed=1)
    assert chosen(stem, overwrite=True, seed=1)[0] == "digits-2"
    name, line = chosen(stem, overwrite=True, seed=2)
    assert name == "digits-3" and f"which --output {stem} --overwrite replaces; this training is in" in line


def test_a_folder_with_the_files_of_a_killed_owner_counts_as_empty(tmp_path):
    for name in (".lock", ".owner.json"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    assert last_numbered_folder(tmp_path / "run") is None
    assert chosen(tmp_path / "run") == ("run", None)


def test_a_checkpoint_of_a_lost_folder_is_saved_in_a_run_folder_beside_it(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with open_run_folder(tmp_path / "run", config(), default=tmp_path) as owned:
        checkpoints = OwnedCheckpoints(owned)
        assert checkpoints.save(model, step=1).parent == tmp_path / "run" / CHECKPOINTS
        log = TensorBoardLog(tmp_path / "run" / "tensorboard", owned.is_ours)
        (tmp_path / "run" / ".lock").unlink()
        with claim(tmp_path / "run"):  # another training, which must keep what it has
            log.on_epoch_end(0, {"loss": 1.0})
            with pytest.raises(FolderLostError, match="saved up to step 2 in '.*run-2'"):
                checkpoints.save(model, step=2)
    assert [path.name for path in (tmp_path / "run" / CHECKPOINTS).iterdir()] == ["step-0000000001.npz"]
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert [path.name for path in (tmp_path / "run-2" / CHECKPOINTS).iterdir()] == ["step-0000000002.npz"]
    assert chosen(tmp_path / "run")[0] == "run"  # each a run of its own that goes on
    shutil.rmtree(tmp_path / "run")
    assert chosen(tmp_path / "run")[0] == "run-2"


def test_two_that_write_one_file_at_once_leave_one_of_the_two(tmp_path):
    barrier = threading.Barrier(2)

    def write(text):
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text(text)
            barrier.wait()
            assert temporary.read_text() == text
            barrier.wait()

    threads = [threading.Thread(target=write, args=[text * 100]) for text in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in ("a" * 100, "b" * 100)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
