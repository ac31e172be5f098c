"""Python programs in a process of their own that does not wait for its imports.

Keras, a backend, TensorFlow's data pipelines and the figures take ten seconds of processor time to import, and the
tests start dozens of processes. One process imports them once, and each program runs in a fork of it: with its own
memory, folder, environment and output, and it can be killed. Nothing of this project is imported before the fork. A
test about imports, or about the first or last second of a process, needs a process from the start: `backends.run`.
"""

import atexit
import json
import os
import pathlib
import subprocess
import sys
import tempfile

_PACKAGES = (
    "keras",
    "tensorflow",
    "h5py",
    "matplotlib.pyplot",
    "rich.console",
    "rich.progress",
    "sklearn.datasets",
    "tyro",
)
_SERVER = """
import importlib, json, os, signal, sys, threading, traceback, types

def serve():
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(begin(job))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

def begin(job):
    for name, number, mode in (("input", 0, os.O_RDONLY), ("output", 1, os.O_WRONLY), ("errors", 2, os.O_WRONLY)):
        os.dup2(os.open(job[name], mode), number)
    sys.stdin = open(0, closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(job["timeout"])
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = ["-c", *job["arguments"]]
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    code = run(lambda: exec(compile(job["program"], "<string>", "exec"), vars(main)))
    threading._shutdown()
    importlib.import_module("atexit")._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code

def run(program):
    try:
        program()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

for package in sys.argv[1:]:
    importlib.import_module(package)
serve()
"""
_servers = {}


def run_warm(program, *arguments, env, cwd=None, timeout=900):
    """Run `program` as `python -c` does, with the packages imported; the process with its output as text."""
    # What a package reads while it is imported has to be there before the fork.
    early = {name: env.get(name) for name in ("KERAS_BACKEND", "OMP_NUM_THREADS", "XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")}
    key = tuple(early.values())
    if key not in _servers or _servers[key].poll() is not None:
        _servers[key] = _start(env)
    server = _servers[key]
    with tempfile.TemporaryDirectory() as folder:
        output, errors = (pathlib.Path(folder, name) for name in ("output", "errors"))
        output.touch()
        errors.touch()
        job = {
            "program": program,
            "arguments": [str(each) for each in arguments],
            "environment": dict(env),
            "cwd": str(cwd or os.getcwd()),
            "input": os.devnull,
            "output": str(output),
            "errors": str(errors),
            "timeout": timeout,
        }
        server.stdin.write(json.dumps(job) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the process that starts the others has ended"
        return subprocess.CompletedProcess(program, int(answer), output.read_text(), errors.read_text())


def _start(env):
    # The folder is first on its path: in that of a test, files could be in the way of a package.
    return subprocess.Popen(
        [sys.executable, "-c", _SERVER, *_PACKAGES],
        cwd=os.path.abspath(os.sep),
        env={name: value for name, value in env.items() if name != "PYTHONPATH"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@atexit.register
def _stop():
    for server in _servers.values():
        server.stdin.close()
        server.wait()
