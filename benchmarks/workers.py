"""What the benchmarks of speed and memory share: processes that take turns, the machine, the tables' place in a page.

Each contender computes in a process of its own, started by a parent that computes nothing while one does.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import shlex
import sys
import traceback

PLAIN = "plain PyTorch"
BACKENDS = ("tensorflow", "jax", "torch")


def serve(connection, library, settings, make, arguments):
    """Answer the commands that come over the pipe, each with `(True, answer)` or `(False, traceback)`."""
    try:
        set_environment(library, settings)
        made = make(*arguments)
        connection.send((True, getattr(made, "device", None)))
        while True:
            command, *arguments = connection.recv()
            connection.send((True, getattr(made, command)(*arguments)))
    except EOFError:  # the parent closed the pipe
        pass
    except Exception:
        connection.send((False, traceback.format_exc()))


def set_environment(library, settings):
    """What the libraries read when they are imported."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    # Several processes share a GPU: none may take all of its memory.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if library != PLAIN:
        os.environ["KERAS_BACKEND"] = library
    if settings.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
        os.environ["JAX_PLATFORMS"] = "cpu"


def torch_device(threads):
    """Set the threads of PyTorch; the name of its device."""
    import torch

    torch.set_num_threads(threads)
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


class Process:
    """A process that makes something and then does what it is asked, one thing at a time.

    Args:
        name: What errors call it.
        library: A Keras backend or `PLAIN`: what is imported there.
        settings: With `threads` and `device`.
        make: A function or class of a module; called there with `arguments`, it makes what has the methods that are
            asked for.
    """

    def __init__(self, name, library, settings, make, *arguments):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.connection, other_end = context.Pipe()
        self._process = context.Process(target=serve, args=(other_end, library, settings, make, arguments), daemon=True)
        self._process.start()
        other_end.close()  # so that the death of the process is seen as the end of the pipe
        self.device = self._answer()

    def _answer(self):
        try:
            good, answer = self.connection.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"{self.name}: the process ended with code {self._process.exitcode}.") from None
        if not good:
            raise RuntimeError(f"{self.name} failed:\n{answer}")
        return answer

    def ask(self, command, *arguments):
        """The answer of the process; a RuntimeError if it failed or died."""
        self.connection.send((command, *arguments))
        return self._answer()

    def close(self):
        """End the process."""
        self.connection.close()
        self._process.join(5)
        self._process.terminate()


def take_cores(options):
    """Keep to as many cores as threads, the processes to come too; the load before, if it leaves them idle."""
    if hasattr(os, "sched_setaffinity"):  # also what JAX takes its number of threads from
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    load = os.getloadavg()[0]
    if load > os.cpu_count() - options.threads + 0.5 and not options.quick:
        # PyTorch's OpenMP threads wait for one another: on busy cores two took ten times as long as one.
        sys.exit(f"{options.threads} threads need as many idle cores, and the load is {load:.1f}: wait, or --threads.")
    return round(load, 2)


def about(script, options, load):
    """What the JSON file says of the machine and the run."""
    return {
        "machine": machine(),
        "threads": options.threads,
        "load_before": load,
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
    }


def write(path, text):
    """Write a text file that appears when it is complete."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def machine():
    """The processor and the number of its cores."""
    details = pathlib.Path("/proc/cpuinfo")
    lines = details.read_text().splitlines() if details.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{platform.system()}, {name}, {os.cpu_count()} CPU cores"


def versions():
    """Versions of what is timed."""
    found = {"python": platform.python_version()}
    for package in ("keras-apa", "keras", "tensorflow", "jax", "torch", "keras-hub"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def put_section(page, start, end, text):
    """Put `text`, which has both markers, in the place of what stands between them in the page.

    Raises: ValueError: If the page has not both markers.
    """
    before, found, rest = page.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{page} has no {start.strip()} ... {end.strip()}, between which the tables stand.")
    write(page, f"{before}{text}{after}")


def available_cores():
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def show(options, table, write_docs, page):
    """What `--table` and `--docs` ask for; whether one of them was given."""
    if not (options.table or options.docs):
        return False
    if not options.results.exists():
        sys.exit(f"{options.results} does not exist; run the script without --table and --docs first.")
    results = json.loads(options.results.read_text(encoding="utf-8"))
    if options.table:
        print(table(results))
    if options.docs:
        write_docs(page, results)
        print(f"Wrote {page}")
    return True


def check_options(parser, options, available, least):
    """End with a parser's error where an option cannot be; `least` has names, values and the least allowed."""
    for name, value, low in least:
        if value < low:
            parser.error(f"--{name} must be at least {low}; given: {value}.")
    if not 1 <= options.threads <= available:
        parser.error(f"--threads must be from 1 to {available}, the cores of this machine; given: {options.threads}.")
    if not options.results.parent.is_dir():
        parser.error(f"--results must lie in a folder that exists; given: {options.results}.")
    missing = [name for name in {"torch", *options.backends} if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"{', '.join(missing)} is not installed (plain PyTorch needs torch, each backend its library).")
