"""One run of the suite on the current backend, with child runs on the other two and one of tests/training beside it."""

import gc
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import quick_jax
from suites import TRAINING

# Python would look through all that TensorFlow has traced again and again, a fifth of the time there. What is imported
# stays anyway, and what tests leave goes in `_programs_are_let_go`.
gc.set_threshold(20_000, 50, 1_000_000)

# What XLA has compiled once it need not compile again: not for another model of the same layers, nor in the processes
# that tests start, which are half of the time on JAX. A folder that is named by the caller is kept.
_COMPILED = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _COMPILED = tempfile.mkdtemp(prefix="keras-apa-jax-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _COMPILED
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

quick_jax.compile_quickly()

# Which suite a child run is: that of a backend, or `TRAINING`, the tests of tests/training that belong to no backend.
_CHILD = "KERAS_APA_CHILD_SUITE"
_BACKEND_SUITE = "1"
_suites = {}
# Who runs a test that belongs to no backend and names none: PyTorch, which has nothing to compile.
_ANY_BACKEND = "torch"


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background job ignores Ctrl-C, and so would the tests that press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path, config):
    """A child run does not start children of its own."""
    if collection_path.name == "test_other_backends.py" and os.environ.get(_CHILD):
        return True
    return None


@pytest.hookimpl(trylast=True)  # after `-m` and `-k`: they decide whether all three suites run
def pytest_collection_modifyitems(config, items):
    """The trainings come after the numbers; the tests that wait for the others last.

    When all suites run, each test that belongs to no backend is run by one of them.
    """
    if os.environ.get(_CHILD) or any(item.path.name == "test_other_backends.py" for item in items):
        config.hook.pytest_deselected(items=[item for item in items if not _is_ours(item)])
        items[:] = filter(_is_ours, items)
    items.sort(key=lambda item: (item.path.name == "test_other_backends.py", _trains(item)))


def _trains(item):
    """Whether the test is one of tests/training."""
    return "training" in item.path.relative_to(item.config.rootpath).parts


def _is_ours(item):
    """Whether this backend's suite runs the test: each one, or one that belongs to no backend and is its own.

    tests/training belongs to no backend but for what is marked `every_backend`: its numbers are those of keras_apa and
    zoo, which run everywhere. What is left of it is a suite of its own, the longest otherwise.
    """
    import keras

    mark, suite = item.get_closest_marker("any_backend"), os.environ.get(_CHILD)
    if item.get_closest_marker("every_backend") or (mark is None and not _trains(item)):
        return suite != TRAINING
    (backend,) = (mark.args if mark else ()) or [_ANY_BACKEND]
    if _trains(item) and backend == _ANY_BACKEND:
        return suite == TRAINING
    return suite != TRAINING and backend == keras.backend.backend()


def pytest_collection_finish(session):
    """Start the other suites as soon as it is known that they are asked for."""
    gc.freeze()
    wanted = [item for item in session.items if item.path.name == "test_other_backends.py"]
    if not wanted or session.config.option.collectonly:
        return
    from backends import environment

    options = session.config.option
    for suite in {item.callspec.params["suite"] for item in wanted}:
        log = pathlib.Path(tempfile.mkdtemp(prefix="keras-apa-tests-")) / f"{suite}.log"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", options.markexpr]
        backend, child = (suite, _BACKEND_SUITE) if suite != TRAINING else (_ANY_BACKEND, TRAINING)
        with log.open("w") as stream:
            process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=session.config.rootpath,
                # One thread each: the suites share the cores, and more threads than cores wait for each other.
                env=environment(backend, OMP_NUM_THREADS="1", **{_CHILD: child}),
            )
        _suites[suite] = (process, log)


def pytest_sessionfinish():
    """Nothing is left running when the session is interrupted."""
    for process, _ in _suites.values():
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    if _COMPILED:
        shutil.rmtree(_COMPILED, ignore_errors=True)


@pytest.fixture(scope="session")
def other_suites():
    """Processes and log files of the other suites."""
    return _suites


_MUCH_MEMORY = 4 * 2**30
_MORE_MEMORY = 2**30
_memory_kept = 0


def _memory():
    """Bytes that this process holds; unbounded where the system does not tell."""
    try:
        return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return float("inf")


@pytest.fixture(autouse=True, scope="module")
def _programs_are_let_go():
    """Backends keep compiled programs, and three suites run at once: what is kept goes when it is some gigabytes.

    Not before, as it takes seconds and what was compiled is then compiled again.
    """
    global _memory_kept
    yield
    import keras

    much = _memory() > max(_MUCH_MEMORY, _memory_kept + _MORE_MEMORY)
    keras.utils.clear_session(free_memory=much)
    if much:
        if keras.backend.backend() == "jax":
            import jax

            jax.clear_caches()
        # The system gets little of it back, so that the next time would be the next module.
        _memory_kept = _memory()


@pytest.fixture(autouse=True, scope="session")
def _initial_values_compile_nothing():
    """See `quick_jax`."""
    import keras

    if keras.backend.backend() == "jax":
        quick_jax.draw_initial_values_with_numpy()


@pytest.fixture(autouse=True)
def _fixed_seed():
    """Every test starts from the same seed, whatever ran before it."""
    import keras

    keras.utils.set_random_seed(0)
