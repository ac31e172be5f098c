"""Time and memory of a training step and of a detection of Mask R-CNN, on each backend and beside other code.

    python benchmarks/detection.py                 # ResNet-50-FPN, one image of 800 x 1333, 80 and 1203 classes
    python benchmarks/detection.py --rounds 1      # one round: wider noise, in half the time
    python benchmarks/detection.py --table         # the tables, from the JSON file
    python benchmarks/detection.py --docs          # the tables into docs/detection.md, from the JSON file
    python benchmarks/detection.py --quick         # small images, one round: whether it runs

Beside it stand the same network with the same weights in plain PyTorch (`benchmarks/plain_torch_detection.py`; before
anything is timed the detections are compared, and the losses of the first step), torchvision's own if it is installed,
and keras-hub's RetinaNet on the same backbone if that is, with its own random weights: what else a user of Keras can
train.

Every contender is a process of its own with the same number of threads on the same cores, so that its memory can be
told. Those of one backend and one task stand ready together and take turns, plain PyTorch among them; a ratio is the
median of the ratios within each turn. Nothing else may compute: the script does not start on a busy machine.
A step is `train_on_batch` (SGD with momentum) with 20 objects in 100 places and masks of 112 x 112, a detection
`predict_on_batch` up to masks of 28 x 28; TensorFlow runs as `fit` runs it (tf.function), JAX compiled, PyTorch eager.
Two figures of memory: the most that the process ever had, libraries and compilation included, which is what it needs,
and the most within a step once it is compiled.

Expect 15 minutes on two idle cores. The script prints what is left. What is measured so far is in
`detection.partial.json`, which takes its place as `detection.json` when all is done.
"""

import argparse
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import re
import sys
import tempfile
import time
import zlib

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
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "detection.md"
START, END = "<!-- benchmarks/detection.py --docs -->\n", "<!-- end -->\n"
TORCHVISION = "torchvision"
TASKS = {"train": "training step", "detect": "detection"}
CLASSES = (80, 1203)
OBJECTS, PLACES = 20, 100
NETWORKS = {"mask_rcnn": "Mask R-CNN", "retinanet": "keras-hub RetinaNet"}
# Differences to plain PyTorch that are still the same network: of a box in pixels and of a score, and of a loss at the
# first step, whose anchors and regions are drawn at random.
LIMITS = {"boxes": 0.05, "scores": 1e-3, "losses": 0.15}
GOALS = {"time": 2.0, "memory": 1.5, "classes": 1.3}
# Start weights as in the reference numbers: gains that give a random network features, proposals and detections.
_GAINS = (
    (r"fpn\.inner_blocks.*weight", 0.2, 1),
    (r"fpn\.layer_blocks.*weight", 1.0, 1),
    (r"rpn\.head\.cls_logits\.weight", 0.5, 1),
    (r"rpn\.head\.bbox_pred\.weight", 0.12, 1),
    (r"fc6\.weight", 0.7, 2),
    (r"cls_score\.weight", 6.0, 1),
    (r"box_predictor\.bbox_pred\.weight", 2.5, 1),
    (r"mask_fcn_logits\.weight", 1.5, 1),
    (r"weight", 1.0, 2),
)


@dataclasses.dataclass(frozen=True)
class Contender:
    """What is measured: a network with a number of classes, at one task, in one process."""

    process: str
    network: str
    task: str
    classes: int

    def references(self):
        """Ratio -> the contender that this one is divided by."""
        references = {"classes": dataclasses.replace(self, classes=CLASSES[0])}
        if self.process != PLAIN or self.classes != CLASSES[0]:
            references["plain_pytorch"] = Contender(PLAIN, "mask_rcnn", self.task, CLASSES[0])
        return {name: reference for name, reference in references.items() if reference != self}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What every process has to know."""

    height: int
    width: int
    threads: int
    device: str = "cpu"


def weights(key, shape):
    """The start value of a tensor of torchvision's state dict, by its name and shape alone."""
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, "float32")
    if key.endswith("running_var"):
        return 0.5 + np.abs(noise)
    if key.endswith("running_mean"):
        return 0.1 * noise
    if key.endswith("bias"):
        value = 0.1 * noise - {"fc6.bias": 1.5, "fc7.bias": 1.0}.get(key[-8:], 0.0)
        if key.endswith("cls_score.bias"):
            value[0] += 8.0  # most proposals are background
        return value
    if len(shape) == 1:
        gain = 0.5 if re.search(r"layer\d\.\d+\.bn[23]", key) else 3.0 if key.endswith("body.bn1.weight") else 1.0
        return gain * (1 + 0.1 * noise)
    gain, numerator = next((gain, n) for pattern, gain, n in _GAINS if re.search(pattern, key))
    fan_in = shape[0] if "conv5_mask" in key else math.prod(shape[1:])
    return np.float32(gain * math.sqrt(numerator / fan_in)) * noise


def scene(settings, classes):
    """An image with `OBJECTS` striped boxes, and its targets as NumPy arrays: whole masks, labels from 0."""
    generator = np.random.default_rng(0)
    height, width = settings.height, settings.width
    image = generator.normal(110, 35, (height, width, 3))
    boxes, masks = np.zeros((OBJECTS, 4), "float32"), np.zeros((OBJECTS, height, width), "uint8")
    for box, mask in zip(boxes, masks, strict=True):
        h, w = generator.integers(height // 16, height // 2), generator.integers(width // 16, width // 2)
        y, x = generator.integers(0, height - h), generator.integers(0, width - w)
        box[:] = x, y, x + w, y + h
        part = slice(y, y + h), slice(x, x + w)
        stripes = np.add(*np.indices((h, w))) // generator.integers(4, 24) % 2
        image[part] = stripes[..., None] * generator.integers(0, 256, 3)
        mask[part] = np.hypot(*(np.indices((h, w)) / np.array([h, w])[:, None, None] - 0.5)) < 0.5
    return np.clip(image, 0, 255).astype("uint8"), {
        "boxes": boxes,
        "labels": generator.integers(0, classes, OBJECTS).astype("int32"),
        "masks": masks,
    }


# ---------------------------------------------------------------------------------------------------------------
# In the process of one contender.


class Measured:
    """A network that makes one step or one detection when it is called."""

    def __init__(self, contender, settings):
        self.contender, self.settings = contender, settings
        self.make()

    def first(self):
        """What the first call gives, to be compared: losses by name, or detections."""
        self.before = peak()
        answer = self()
        self.compiled = peak()
        self()
        reset_peak()
        return answer

    def measure(self):
        """Seconds of one call."""
        start = time.perf_counter()
        self()
        return time.perf_counter() - start

    def memory(self):
        """Bytes: before the first call, at most ever, at most in a call once it was compiled."""
        step = peak()
        return {"before": self.before, "peak": max(step, self.compiled), "step": step}


def peak():
    """The most memory that this process had resident since the last `reset_peak`, in bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak():
    """Let `peak` count anew, on Linux; elsewhere it goes on."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


class Ours(Measured):
    """A detector of `zoo`, or keras-hub's RetinaNet, on one Keras backend."""

    def make(self):
        backend, settings = self.contender.process, self.settings
        if backend == "tensorflow":
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(settings.threads)
            tf.config.threading.set_inter_op_parallelism_threads(settings.threads)
        elif backend == "torch":
            torch_device(settings.threads)
        retinanet = self.contender.network == "retinanet"
        self.model = self._retinanet() if retinanet else self._mask_rcnn()
        image, targets = scene(settings, self.contender.classes)
        size = [math.ceil(side / 32) * 32 for side in image.shape[:2]]
        if retinanet:  # its pyramid doubles 7 times
            size = [math.ceil(side / 128) * 128 for side in size]
        pixels = np.zeros((1, *size, 3), "float32")
        pixels[0, : image.shape[0], : image.shape[1]] = image
        padded = {
            "boxes": np.zeros((1, PLACES, 4), "float32"),
            "labels": np.full((1, PLACES), -1, "int32"),
        }
        for key, value in padded.items():
            value[0, :OBJECTS] = targets[key]
        if retinanet:
            import keras

            self.inputs = keras.ops.convert_to_tensor(pixels / 255)
            padded = {key: keras.ops.convert_to_tensor(value) for key, value in padded.items()}
        else:
            from zoo.detection import crop_masks

            self.inputs = {"images": pixels, "image_size": np.array([image.shape[:2]], "int32")}
            padded["masks"] = np.zeros((1, PLACES, 112, 112), "uint8")
            padded["masks"][0, :OBJECTS] = crop_masks(targets["masks"], targets["boxes"], 112)
        self.targets = padded

    def _mask_rcnn(self):
        import keras

        import zoo

        detector = zoo.MaskRCNN("resnet50", self.contender.classes, frozen_stages=1, mask_format="box", seed=0)
        shapes = {tensor.key: tensor.shape for tensor in zoo.detection.checkpoint.torchvision_tensors(detector)}
        zoo.load_torch_checkpoint(detector, {key: weights(key, shape) for key, shape in shapes.items()})
        detector.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
        return detector

    def _retinanet(self):
        import keras
        import keras_hub

        encoder = keras_hub.models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[3, 4, 6, 3],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="bottleneck_block",
            image_shape=(None, None, 3),
        )
        backbone = keras_hub.models.RetinaNetBackbone(encoder, min_level=3, max_level=7, use_p5=False)
        model = keras_hub.models.RetinaNetObjectDetector(
            backbone, num_classes=self.contender.classes, bounding_box_format="xyxy"
        )
        model.compile(optimizer=keras.optimizers.SGD(1e-4, momentum=0.9))
        self.predict = self._compiled(model)
        return model

    def _compiled(self, model):
        """Images to detections of keras-hub's model, whose `predict_on_batch` fails (0.32)."""
        if self.contender.process == "tensorflow":
            import tensorflow as tf

            return tf.function(lambda x: model.decode_predictions(model(x, training=False), x))
        if self.contender.process == "jax":
            import jax

            @jax.jit
            def infer(state, x):
                return model.decode_predictions(model.stateless_call(*state, x, training=False)[0], x)

            kinds = (model.trainable_variables, model.non_trainable_variables)
            return lambda x: infer(tuple([variable.value for variable in kind] for kind in kinds), x)
        import torch

        def infer_eagerly(x):
            with torch.no_grad():
                return model.decode_predictions(model(x, training=False), x)

        return infer_eagerly

    def __call__(self):
        if self.contender.task == "train":
            import keras

            # Not the method of keras-hub's model, which cannot take a dict of targets (0.32).
            logs = keras.Model.train_on_batch(self.model, self.inputs, self.targets, return_dict=True)
            return {key: float(np.asarray(value)) for key, value in logs.items()}
        if self.contender.network == "retinanet":
            found = self.predict(self.inputs)
        else:
            found = self.model.predict_on_batch(self.inputs)
        return {key: np.asarray(value)[0] for key, value in found.items() if key in ("boxes", "scores", "labels")}


class Plain(Measured):
    """Mask R-CNN in plain PyTorch, or torchvision's, in a process that does not import Keras."""

    # torchvision's names of the losses, and ours.
    LOSSES = {
        "loss_classifier": "classifier_loss",
        "loss_box_reg": "box_loss",
        "loss_mask": "mask_loss",
        "loss_objectness": "objectness_loss",
        "loss_rpn_box_reg": "proposal_box_loss",
    }

    def make(self):
        import plain_torch_detection
        import torch

        torch.manual_seed(0)
        torch_device(self.settings.threads)
        if self.contender.process == TORCHVISION:
            import torchvision

            self.network = torchvision.models.detection.maskrcnn_resnet50_fpn(
                weights=None,
                weights_backbone=None,
                num_classes=self.contender.classes + 1,
                min_size=self.settings.height,
                max_size=self.settings.width,
            )
        else:
            self.network = plain_torch_detection.MaskRCNN(self.contender.classes + 1)
        shapes = {key: tuple(x.shape) for key, x in self.network.state_dict().items() if x.is_floating_point()}
        arrays = {key: weights(key, shape) for key, shape in shapes.items()}
        self.network.load_state_dict({key: torch.from_numpy(x) for key, x in arrays.items()}, strict=False)
        self.network.train(self.contender.task == "train")
        image, targets = scene(self.settings, self.contender.classes)
        pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
        self.images = [pixels / 255] if self.contender.process == TORCHVISION else pixels[None]
        self.targets = [
            {
                "boxes": torch.from_numpy(targets["boxes"]),
                "labels": torch.from_numpy(targets["labels"]).long() + 1,
                "masks": torch.from_numpy(targets["masks"]),
            }
        ]
        trained = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, 1e-4, momentum=0.9)

    def __call__(self):
        import torch

        if self.contender.task == "train":
            losses = self.network(self.images, self.targets)
            total = sum(losses.values())
            self.optimizer.zero_grad()
            total.backward()
            self.optimizer.step()
            return {ours: losses[theirs].item() for theirs, ours in self.LOSSES.items()}
        with torch.no_grad():
            found = self.network(self.images)[0]
        return {
            "boxes": found["boxes"].numpy(),
            "scores": found["scores"].numpy(),
            "labels": found["labels"].numpy() - 1,
        }


# ---------------------------------------------------------------------------------------------------------------
# In the parent, which computes nothing while a process does.


def start(contender, settings):
    """The process of a contender."""
    plain = contender.process in (PLAIN, TORCHVISION)
    library = PLAIN if plain else contender.process
    return Process(describe(contender), library, settings, Plain if plain else Ours, contender, settings)


def describe(contender):
    """A contender in words."""
    return f"{TASKS[contender.task]}, {NETWORKS[contender.network]}, {contender.process}, {contender.classes} classes"


def groups(backends, tasks, classes):
    """Lists of contenders that take turns; the first of each is what the others are divided by."""
    hub = importlib.util.find_spec("keras_hub") is not None
    torchvision = importlib.util.find_spec("torchvision") is not None
    for task in tasks:
        for place, backend in enumerate(backends):
            group = [Contender(PLAIN, "mask_rcnn", task, classes[0])]
            if place == len(backends) - 1:
                group += [Contender(PLAIN, "mask_rcnn", task, number) for number in classes[1:]]
                group += [Contender(TORCHVISION, "mask_rcnn", task, classes[0])] if torchvision else []
            group += [Contender(backend, "mask_rcnn", task, number) for number in classes]
            group += [Contender(backend, "retinanet", task, classes[0])] if hub else []
            yield group


def differences(answer, wanted):
    """The largest difference of two answers of `Measured.first` by kind.

    Raises: RuntimeError: If they are not of the same network.
    """
    if "boxes" in wanted:
        number = len(wanted["labels"])
        found = {key: value[answer["labels"] >= 0] for key, value in answer.items()}
        if len(found["labels"]) != number:
            raise RuntimeError(f"{len(found['labels'])} detections in place of {number}.")
        # Detections of nearly equal scores may change places: compared are the sorted ones of each class.
        order, other = (np.lexsort((x["boxes"][:, 0], x["labels"])) for x in (found, wanted))
        result = {
            key: float(np.abs(found[key][order] - wanted[key][other]).max()) if number else 0.0
            for key in ("boxes", "scores")
        }
        same = np.array_equal(found["labels"][order], wanted["labels"][other])
        if not same:
            raise RuntimeError("the labels of the detections are others.")
    else:
        result = {"losses": max(abs(answer[key] / value - 1) for key, value in wanted.items())}
    for key, value in result.items():
        if not value <= LIMITS[key]:
            raise RuntimeError(f"{key} differ by {value:.2g}; at most {LIMITS[key]:g} is rounding or chance.")
    return result


def run_group(group, settings, rounds):
    """One dict a contender for the JSON file."""
    processes, compared, first_seconds = {}, {}, {}
    try:
        for contender in group:
            print(f"Preparing {describe(contender)}", flush=True)
            begin = time.perf_counter()
            try:
                processes[contender] = start(contender, settings)
                answer = processes[contender].ask("first")
            except RuntimeError as error:
                if contender.network != "retinanet":
                    raise
                reason = str(error).strip().splitlines()[-1]
                print(f"  left out: {reason}", flush=True)  # what others make of it is no reason to stop
                continue
            first_seconds[contender] = time.perf_counter() - begin
            if contender == group[0]:
                wanted = answer
            elif contender.network == "mask_rcnn" and contender.classes == group[0].classes:
                try:
                    compared[contender] = differences(answer, wanted)
                except RuntimeError as error:
                    raise RuntimeError(f"{describe(contender)} is not plain PyTorch's network: {error}") from None
        group = [contender for contender in group if contender in first_seconds]
        times = {contender: [] for contender in group}
        for number in range(rounds):
            # Forwards and backwards, so that not each has always the same predecessor.
            for contender in group[:: 1 if number % 2 == 0 else -1]:
                times[contender].append(processes[contender].ask("measure"))
        memory = {contender: processes[contender].ask("memory") for contender in group}
    finally:
        for process in processes.values():
            process.close()
    rows = []
    for contender in group:
        row = {
            **dataclasses.asdict(contender),
            "seconds": float(f"{np.median(times[contender]):.4g}"),
            "all_seconds": [float(f"{t:.4g}") for t in times[contender]],
            "first_seconds": round(first_seconds[contender], 1),
            "gib": {key: round(value / 2**30, 2) for key, value in memory[contender].items()},
            "difference": compared.get(contender),
            "time_ratios": {},
            "memory_ratios": {},
        }
        for name, reference in contender.references().items():
            if reference in times:
                ratios = np.divide(times[contender], times[reference])
                row["time_ratios"][name] = round(float(np.median(ratios)), 3)
                row["memory_ratios"][name] = round(memory[contender]["peak"] / memory[reference]["peak"], 3)
        rows.append(row)
        print(f"  {describe(contender)}: {row['seconds']:.2f} s, {row['gib']['peak']:.2f} GiB", flush=True)
    return rows


def run(options):
    """Measure everything and write the JSON file."""
    settings = Settings(*options.image, options.threads)
    load = take_cores(options)
    if importlib.util.find_spec("keras_hub") is None:
        print("keras-hub is not installed: its RetinaNet is left out.", flush=True)
    if importlib.util.find_spec("torchvision") is None:
        print("torchvision is not installed: its Mask R-CNN is left out.", flush=True)
    everything = list(groups(options.backends, options.tasks, options.classes))
    partial = options.results.with_suffix(".partial.json")
    rows, begin = [], time.perf_counter()
    for done, group in enumerate(everything, start=1):
        rows += run_group(group, settings, options.rounds)
        results = {
            **about("detection.py", options, load),
            "image": list(options.image),
            "objects": OBJECTS,
            "rounds": options.rounds,
            "results": rows,
        }
        write(partial, json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        left = (time.perf_counter() - begin) / done * (len(everything) - done)
        print(f"About {math.ceil(left / 60)} minutes left", flush=True)
    os.replace(partial, options.results)
    print(f"Wrote {options.results}")


def table(results):
    """Markdown: one table a task, and what was measured where."""
    sections = []
    for task, words in TASKS.items():
        rows = [row for row in results["results"] if row["task"] == task]
        if not rows:
            continue
        sections += [f"One {words}:", ""]
        sections.append("| network | with | classes | s | × plain PyTorch | × 80 classes | GiB | × plain PyTorch |")
        sections.append("| --- | --- |" + " ---: |" * 6)
        for row in rows:
            time_ratios, memory_ratios = row["time_ratios"], row["memory_ratios"]
            cells = [NETWORKS[row["network"]], row["process"], str(row["classes"]), f"{row['seconds']:.2f}"]
            cells += [f"{time_ratios[key]:.2f}" if key in time_ratios else "" for key in ("plain_pytorch", "classes")]
            cells += [f"{row['gib']['peak']:.2f}"]
            cells += [f"{memory_ratios['plain_pytorch']:.2f}" if "plain_pytorch" in memory_ratios else ""]
            sections.append(f"| {' | '.join(cells)} |")
        sections.append("")
    found = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if name != "python")
    height, width = results["image"]
    rounds = "one round" if results["rounds"] == 1 else f"medians of {results['rounds']} rounds"
    sections.append(
        f"ResNet-50-FPN, one image of {height} x {width} with {results['objects']} objects, float32; "
        f"{rounds}; plain PyTorch runs again beside each backend. A ratio is the median of the ratios within a "
        "round. GiB is the peak memory of the process, including libraries and compilation. "
        f"{results['machine']}, {results['threads']} threads; {found}; {results['date'][:10]}."
    )
    return "\n".join(sections)


def section(results):
    """What stands between the markers of docs/detection.md."""
    return f"{START}{table(results)}\n{END}"


def write_docs(page, results):
    """Put the tables into the page; errors as `put_section`."""
    put_section(page, START, END, section(results))


def main():
    """The command line."""
    available = available_cores()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, nargs=2, help="height and width in pixels, at least 64; default 800 1333")
    parser.add_argument("--rounds", type=int, help="default 3")
    parser.add_argument("--backends", choices=BACKENDS, nargs="+", default=list(BACKENDS))
    parser.add_argument("--tasks", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--classes", type=int, nargs="+", default=list(CLASSES), help="default 80 1203")
    parser.add_argument("--threads", type=int, default=available, help=f"of each process; default {available}")
    parser.add_argument("--quick", action="store_true", help="128 x 160 pixels, one round")
    parser.add_argument("--results", type=pathlib.Path, help="the JSON file; with --quick, one in the temporary folder")
    parser.add_argument("--table", action="store_true", help="print the tables and measure nothing")
    parser.add_argument("--docs", action="store_true", help=f"write the tables into {PAGE.name} and measure nothing")
    options = parser.parse_args()
    defaults = ([800, 1333], 3, RESULTS)
    if options.quick:
        defaults = ([128, 160], 1, pathlib.Path(tempfile.gettempdir()) / RESULTS.name)
    for name, default in zip(("image", "rounds", "results"), defaults, strict=True):
        if getattr(options, name) is None:
            setattr(options, name, default)
    if show(options, table, write_docs, PAGE):
        return
    least = (("image", min(options.image), 64), ("rounds", options.rounds, 1), ("classes", min(options.classes), 1))
    check_options(parser, options, available, least)
    run(options)


if __name__ == "__main__":
    main()
