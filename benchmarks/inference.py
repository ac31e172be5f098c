"""How fast SE-ResNet-50 answers: ReLU and sigmoid against AGLU and APA*, on each backend and beside other code.

    python benchmarks/inference.py                 # batches of 1 and 16 images of 224 x 224, 15 rounds
    python benchmarks/inference.py --rounds 5      # the same in a third of the time, with wider quartiles
    python benchmarks/inference.py --table         # the tables, from the JSON file
    python benchmarks/inference.py --docs          # the tables into docs/speed.md, from the JSON file
    python benchmarks/inference.py --quick         # one round of small images: whether it runs

Beside it stand the same networks with the same weights in plain PyTorch (`benchmarks/plain_torch.py`; their outputs
are compared before anything is timed), `keras.applications.ResNet50` and, if it is installed, keras-hub's ResNet-50.
keras.applications and keras-hub have no gates, so they do a little less.

Each backend, and plain PyTorch, is a process with the same number of threads on the same cores. Only one of them
computes at a time, and nothing else may: a busy machine slows PyTorch far more than the others, so the script does
not start on one. A round visits every contender once, in a random order: a call that is thrown away, then calls
for about a third of a second. A ratio is the median of the ratios within each round. Images are on the device
before, logits are fetched: the time is that from the call to an array in hand. On a GPU each library multiplies at
its own default precision.

Expect 45 minutes on two idle CPU cores, an estimate: 10 minutes to compile and compare the 40 contenders, and 2 to 3
minutes a round. The script prints what is left after each round. After each round the results so far are written to
`inference.partial.json`, which takes its place as `inference.json` when all rounds are done: a run that is cut can be
kept by renaming it, and says how many rounds it had.
"""

import argparse
import copy
import dataclasses
import importlib.metadata
import importlib.util
import json
import math
import os
import pathlib
import random
import sys
import tempfile
import time

import numpy as np
from workers import (
    BACKENDS,
    PLAIN,
    Process,
    about,
    available_cores,
    check_options,
    put_section,
    show,
    take_cores,
    torch_device,
    write,
)

RESULTS = pathlib.Path(__file__).with_suffix(".json")
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "speed.md"
START, END = "<!-- benchmarks/inference.py --docs -->\n", "<!-- end -->\n"
MODES = {
    "tensorflow": ("tf.function", "tf.function, jit_compile"),
    "jax": ("jit",),
    "torch": ("eager",),
    PLAIN: ("eager", "eager, channels_last"),
}
COMPILE = "torch.compile"
NETWORKS = {
    "relu": "SE-ResNet-50, ReLU and sigmoid",
    "aglu": "SE-ResNet-50, AGLU and APA*",
    "applications": "keras.applications ResNet50",
    "keras_hub": "keras-hub ResNet-50",
}
OURS = {"relu": {}, "aglu": {"activation": "aglu", "gate": "apa"}}
# Difference to plain PyTorch that is still the same network, of the largest logit: rounding, or TF32 on a GPU.
LIMITS = {"cpu": 2e-4, "gpu": 2e-2}
SECONDS = 0.3
RATIOS = {
    "plain_pytorch": "× plain PyTorch",
    "relu_sigmoid": "× ReLU and sigmoid",
    "keras_applications": "× keras.applications",
}


@dataclasses.dataclass(frozen=True)
class Contender:
    """What is timed: a network in one mode of one process, with a batch size."""

    process: str
    network: str
    mode: str
    batch: int

    def references(self):
        """Ratio -> the contender whose time this one's is divided by."""
        references = {}
        if self.network in OURS:
            references["plain_pytorch"] = dataclasses.replace(self, process=PLAIN, mode=MODES[PLAIN][0])
            references["relu_sigmoid"] = dataclasses.replace(self, network="relu")
        if self.process != PLAIN:
            references["keras_applications"] = dataclasses.replace(self, network="applications")
        return {name: reference for name, reference in references.items() if reference != self}


# ---------------------------------------------------------------------------------------------------------------
# In the process of one backend, or of plain PyTorch.


def make_networks(process, settings):
    """What a process answers with."""
    return PlainNetworks(settings) if process == PLAIN else KerasNetworks(process, settings)


class Networks:
    """Networks by name, and their compiled functions by name and mode; a subclass knows how to make them."""

    def __init__(self, settings):
        self.settings = settings
        self.models, self.functions, self.inputs = {}, {}, {}

    def outputs(self, network, mode, batch):
        """Compile for the batch size, warm up, and return the logits of the common images."""
        if (network, mode) not in self.functions:
            self.functions[network, mode] = self.compile(self.models[network], mode)
        if (mode, batch) not in self.inputs:
            side = self.settings.images
            images = np.random.default_rng(0).standard_normal((batch, side, side, 3), "float32")
            self.inputs[mode, batch] = self.put(images, mode)
        for _ in range(3):
            logits = self.functions[network, mode](self.inputs[mode, batch])
        return logits

    def measure(self, network, mode, batch, seconds):
        """Seconds a call: the mean over calls for about `seconds`, after one that is thrown away."""
        function, images = self.functions[network, mode], self.inputs[mode, batch]
        function(images)  # the cores' caches hold another process's data
        calls, start = 0, time.perf_counter()
        while True:
            function(images)
            calls += 1
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                return elapsed / calls


class KerasNetworks(Networks):
    """Networks of `zoo`, keras.applications and keras-hub on one Keras backend."""

    def __init__(self, backend, settings):
        super().__init__(settings)
        self.backend = backend
        if backend == "tensorflow":
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")  # one function a network is not one function traced too often
            tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
            tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
            gpus = tf.config.list_physical_devices("GPU")
            self.device = tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"
        elif backend == "jax":
            import jax  # its threads are those of the cores that the process may use

            device = jax.devices()[0]
            self.device = "cpu" if device.platform == "cpu" else device.device_kind
        else:
            self.device = torch_device(settings.threads)

    def make(self, network, arrays=None):
        """Make a network; `arrays`: the state dict of one of ours."""
        import keras

        keras.utils.set_random_seed(0)
        shape = (self.settings.images, self.settings.images, 3)
        if network in OURS:
            import zoo

            model = zoo.create_model("se_resnet50", input_shape=shape, **OURS[network])
            if arrays is not None:
                zoo.load_torch_checkpoint(model, arrays)
        elif network == "applications":
            model = keras.applications.ResNet50(weights=None, input_shape=shape, classifier_activation=None)
        else:
            import keras_hub

            backbone = keras_hub.models.ResNetBackbone(
                input_conv_filters=[64],
                input_conv_kernel_sizes=[7],
                stackwise_num_filters=[64, 128, 256, 512],
                stackwise_num_blocks=[3, 4, 6, 3],
                stackwise_num_strides=[1, 2, 2, 2],
                block_type="bottleneck_block",
                image_shape=shape,
            )
            model = keras_hub.models.ResNetImageClassifier(backbone, num_classes=1000)
        self.models[network] = model

    def state_dict(self, network):
        """A network's start weights, with batch statistics and scales that are not all 0 and 1."""
        import zoo

        generator = np.random.default_rng(0)
        arrays = zoo.to_torch_state_dict(self.models[network])
        for key, array in arrays.items():
            noise = generator.standard_normal(array.shape, "float32")
            if key.endswith("running_var"):
                arrays[key] = 0.5 + np.abs(noise)
            elif key.endswith("running_mean") or (key.endswith("weight") and array.ndim == 1):
                arrays[key] = array + 0.1 * noise
        return arrays

    def put(self, images, mode):
        """The images as a tensor of the backend, on its device."""
        import keras

        return keras.ops.convert_to_tensor(images)

    def compile(self, model, mode):
        """A function from images to logits as a numpy array."""
        if self.backend == "tensorflow":
            import tensorflow as tf

            infer = tf.function(lambda x: model(x, training=False), jit_compile="jit_compile" in mode)
            return lambda images: infer(images).numpy()
        if self.backend == "jax":
            import jax

            infer = jax.jit(lambda state, x: model.stateless_call(*state, x, training=False)[0])
            variables = (model.trainable_variables, model.non_trainable_variables)
            state = tuple([variable.value for variable in kind] for kind in variables)
            return lambda images: np.asarray(infer(state, images))
        return _torch_function(lambda x: model(x, training=False), mode)


class PlainNetworks(Networks):
    """The networks of `plain_torch`, in a process that does not import Keras."""

    def __init__(self, settings):
        super().__init__(settings)
        self.device = torch_device(settings.threads)

    def make(self, network, arrays):
        """Make one of our networks from its state dict."""
        import plain_torch
        import torch

        model = plain_torch.SEResNet50(adaptive=network == "aglu")
        plain_torch.load_arrays(model, arrays)
        self.models[network] = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def put(self, images, mode):
        """The images as a tensor `(batch, 3, height, width)` on the device."""
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        layout = torch.channels_last if "channels_last" in mode else torch.contiguous_format
        return tensor.to("cuda" if torch.cuda.is_available() else "cpu", memory_format=layout)

    def compile(self, model, mode):
        """A function from images to logits as a numpy array."""
        import torch

        if "channels_last" in mode:
            model = copy.deepcopy(model).to(memory_format=torch.channels_last)
        return _torch_function(model, mode)


def _torch_function(function, mode):
    import torch

    infer = torch.compile(function) if mode == COMPILE else function

    def call(images):
        with torch.no_grad():
            return infer(images).cpu().numpy()

    return call


# ---------------------------------------------------------------------------------------------------------------
# In the parent, which computes nothing while a process does.


def start(names, settings):
    """The processes by name, all on the same device; which one, as text."""
    processes = {}
    try:
        for name in names:
            processes[name] = Process(name, name, settings, make_networks, name, settings)
    except BaseException:
        close(processes)
        raise
    devices = {name: process.device for name, process in processes.items()}
    if len(set(devices.values())) == 1 and not (settings.device == "gpu" and "cpu" in devices.values()):
        return processes, devices[PLAIN]
    close(processes)
    found = ", ".join(f"{name}: {device}" for name, device in devices.items())
    if settings.device != "auto":
        sys.exit(f"--device {settings.device} needs the same device for all; found {found}.")
    print(f"Not every process has the same device ({found}); all run on the CPU.", flush=True)
    return start(names, dataclasses.replace(settings, device="cpu"))


def close(processes):
    """End all processes."""
    for process in processes.values():
        process.close()


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every process has to know."""

    images: int
    threads: int
    device: str


def contenders(backends, batches, compile_torch):
    """Everything that is timed."""
    hub = importlib.util.find_spec("keras_hub") is not None
    found = []
    for process in (PLAIN, *backends):
        networks = OURS if process == PLAIN else [name for name in NETWORKS if name != "keras_hub" or hub]
        modes = MODES[process] + ((COMPILE,) if compile_torch and process in (PLAIN, "torch") else ())
        found += [
            Contender(process, network, mode, batch) for network in networks for mode in modes for batch in batches
        ]
    return found


def prepare(processes, everyone, limit):
    """Make, load, compile and warm up; the difference of our outputs to plain PyTorch's, of the largest logit.

    Raises: RuntimeError: If a difference is above `limit`: what would be timed is not the same network.
    """
    source = next(process for name, process in processes.items() if name != PLAIN)
    for network in OURS:
        source.ask("make", network)
        arrays = source.ask("state_dict", network)
        for process in processes.values():
            process.ask("make", network, arrays)
    for process, network in sorted({(c.process, c.network) for c in everyone if c.network not in OURS}):
        processes[process].ask("make", network)
    wanted, differences = {}, {}
    for contender in everyone:  # plain PyTorch comes first
        print(f"Compiling {describe(contender)}", flush=True)
        logits = processes[contender.process].ask("outputs", contender.network, contender.mode, contender.batch)
        if contender.network not in OURS:
            continue
        reference = wanted.setdefault((contender.network, contender.batch), logits)
        difference = float(np.abs(logits - reference).max() / np.abs(reference).max())
        if not difference <= limit:
            raise RuntimeError(
                f"{describe(contender)} differs from plain PyTorch by {difference:.1e} of the largest logit; "
                f"at most {limit:.0e} is rounding."
            )
        differences[contender] = difference
    return differences


def describe(contender):
    """A contender in words."""
    return f"{NETWORKS[contender.network]}, {contender.process} ({contender.mode}), batch {contender.batch}"


def measure(processes, everyone, rounds, seconds):
    """Yields, after each round, contender -> seconds a batch, one number a round; in the order of the tables."""
    order = sorted(everyone, key=lambda contender: list(NETWORKS).index(contender.network))
    times = {contender: [] for contender in order}
    # In a fixed order, each contender would always suffer from the same predecessor.
    generator = random.Random(0)
    begin = time.perf_counter()
    for number in range(1, rounds + 1):
        print(f"Round {number} of {rounds}", flush=True)
        for contender in generator.sample(everyone, len(everyone)):
            answer = processes[contender.process].ask(
                "measure", contender.network, contender.mode, contender.batch, seconds
            )
            times[contender].append(answer)
        left = (time.perf_counter() - begin) / number * (rounds - number)
        print(f"About {math.ceil(left / 60)} minutes left", flush=True)
        yield times


def summarize(times, differences):
    """One dict a contender for the JSON file."""
    rows = []
    for contender, seconds in times.items():
        low, middle, high = (float(f"{1e3 * value:.4g}") for value in np.percentile(seconds, (25, 50, 75)))
        ratios = {
            name: round(float(np.median(np.divide(seconds, times[reference]))), 3)
            for name, reference in contender.references().items()
            if reference in times
        }
        rows.append(
            {
                **dataclasses.asdict(contender),
                "milliseconds": middle,
                "quartiles": [low, high],
                "images_per_second": float(f"{1e3 * contender.batch / middle:.4g}"),
                "time_ratios": ratios,
                "difference": differences.get(contender),
            }
        )
    return rows


def run(options):
    """Time everything and write the JSON file."""
    settings = Settings(options.images, options.threads, options.device)
    load = take_cores(options)
    everyone = contenders(options.backends, options.batches, options.compile)
    processes, device = start((PLAIN, *options.backends), settings)
    partial = options.results.with_suffix(".partial.json")
    try:
        differences = prepare(processes, everyone, LIMITS["cpu" if device == "cpu" else "gpu"])
        described = {
            **about("inference.py", options, load),
            "device": device,
            "images": options.images,
            "largest_difference": max(differences.values()),
        }
        seconds = SECONDS / 10 if options.quick else SECONDS
        for rounds, times in enumerate(measure(processes, everyone, options.rounds, seconds), start=1):
            results = {**described, "rounds": rounds, "results": summarize(times, differences)}
            write(partial, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    finally:
        close(processes)
    os.replace(partial, options.results)
    print(f"Wrote {options.results}")


def table(results):
    """Markdown: one table a batch size, and what was measured where."""
    sections = []
    for batch in sorted({row["batch"] for row in results["results"]}):
        sections += [f"Batch of {batch}:", ""]
        sections.append(f"| network | with | ms | images/s | {' | '.join(RATIOS.values())} |")
        sections.append("| --- | --- |" + " ---: |" * (2 + len(RATIOS)))
        for row in results["results"]:
            if row["batch"] != batch:
                continue
            ratios = [f"{row['time_ratios'][name]:.2f}" if name in row["time_ratios"] else "" for name in RATIOS]
            cells = [NETWORKS[row["network"]], f"{row['process']}, {row['mode']}"]
            cells += [_digits(row["milliseconds"]), _digits(row["images_per_second"]), *ratios]
            sections.append(f"| {' | '.join(cells)} |")
        sections.append("")
    found = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if name != "python")
    rounds = f"medians of {results['rounds']} rounds" if results["rounds"] > 1 else "one round"
    device = f"{results['threads']} threads" if results["device"] == "cpu" else results["device"]
    sections.append(
        f"Images of {results['images']} x {results['images']}, float32; {rounds}. "
        "The last three columns compare the time with that of the same network in plain PyTorch (eager), with ReLU and "
        "sigmoid, and with ResNet50 of keras.applications. Outputs differ from plain PyTorch's by at most "
        f"{results['largest_difference']:.0e} of the largest logit. {results['machine']}, {device}; {found}; "
        f"{results['date'][:10]}."
    )
    return "\n".join(sections)


def section(results):
    """What stands between the markers of docs/speed.md."""
    return f"{START}{table(results)}\n{END}"


def write_docs(page, results):
    """Put the tables into the page; errors as `put_section`."""
    put_section(page, START, END, section(results))


def _digits(number):
    """Three significant digits, without an exponent."""
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}"


def main():
    """The command line."""
    available = available_cores()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, help="height and width in pixels, at least 32; default 224")
    parser.add_argument("--rounds", type=int, help="default 15; 2 to 3 minutes each on two CPU cores")
    parser.add_argument("--batches", type=int, nargs="+", help="default 1 16")
    parser.add_argument("--backends", choices=BACKENDS, nargs="+", default=list(BACKENDS))
    parser.add_argument("--compile", action="store_true", help="time torch.compile too, which compiles for minutes")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--threads", type=int, default=available, help=f"of each process; default {available}")
    parser.add_argument("--quick", action="store_true", help="64 pixels, batches of 1 and 2, one short round")
    parser.add_argument("--results", type=pathlib.Path, help="the JSON file; with --quick, one in the temporary folder")
    parser.add_argument("--table", action="store_true", help="print the tables and time nothing")
    parser.add_argument("--docs", action="store_true", help=f"write the tables into {PAGE.name} and time nothing")
    options = parser.parse_args()
    defaults = (64, 1, [1, 2], pathlib.Path(tempfile.gettempdir()) / RESULTS.name)
    defaults = defaults if options.quick else (224, 15, [1, 16], RESULTS)
    for name, default in zip(("images", "rounds", "batches", "results"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, default)
    if show(options, table, write_docs, PAGE):
        return
    least = (("images", options.images, 32), ("rounds", options.rounds, 1), ("batches", min(options.batches), 1))
    check_options(parser, options, available, least)
    run(options)


if __name__ == "__main__":
    main()
