"""Whether training waits for its images: images a second of the pipeline, of the training step, and of both at once.

    python benchmarks/input_pipeline.py                     # about five minutes on two CPU cores
    python benchmarks/input_pipeline.py --backend tensorflow
    python benchmarks/input_pipeline.py --table             # the table, from the JSON file

The three are measured in turns in one process, and the medians of the rounds taken; the first batches of a measurement,
which the pipeline may have had ready, are thrown away. The step is `train_on_batch`. The images are noise, decoded and
in memory: what is measured is augmentation, batching and mixing. Both sides use all cores, so that together they are
slower than either; the network waits where "together" is near the pipeline alone and far below the step alone.
"""

import argparse
import json
import os
import pathlib
import statistics
import sys
import time

RESULTS = pathlib.Path(__file__).with_suffix(".json")
CIFAR = {"crop": "padded", "flip": True}
POLICY = {"policy": "autoaugment_cifar", "cutout": 16, "policy_interpolation": "bilinear", "mixup_alpha": 0.2}
# name -> (image shape, classes, options of the augmentation, networks)
PIPELINES = {
    "digits: shift": ((16, 16, 1), 100, {"shift": 1}, ("se_resnet8",)),
    "CIFAR: crop, flip": ((32, 32, 3), 100, CIFAR, ("se_resnet8", "resnet32")),
    "CIFAR: crop, flip, AutoAugment, cutout, mixup": (
        (32, 32, 3),
        100,
        {**CIFAR, **POLICY},
        ("se_resnet8", "resnet32"),
    ),
}


def pipeline(shape, classes, options, batch_size, seed=0):
    """An endless dataset of augmented and mixed batches."""
    import numpy as np
    import tensorflow as tf

    from training.config.classification import AugmentOptions
    from training.data.classification.augmentation import augment, mix
    from training.data.classification.pipeline import PREFETCHED, READERS, without_tuning
    from zoo.preprocessing import cifar

    generator, options = np.random.default_rng(seed), AugmentOptions(**options)
    if shape[-1] == 3:
        images, preprocessing = generator.integers(0, 256, (5000, *shape), dtype=np.uint8), cifar()
    else:
        images, preprocessing = generator.normal(size=(5000, *shape)).astype("float32"), None
    images, labels = tf.constant(images), tf.constant(generator.integers(0, classes, 5000))

    def one(position):
        seeds = tf.stack([seed, tf.cast(position, tf.int32)])
        index = position % 5000
        image = augment(tf.gather(images, index), seeds, options, shape[0], preprocessing)
        return image, tf.one_hot(tf.gather(labels, index), classes)

    def together(position, batch):
        return mix(*batch, tf.stack([seed + 1, tf.cast(position, tf.int32)]), options)

    dataset = tf.data.Dataset.range(10**9).map(one, num_parallel_calls=READERS, deterministic=True)
    dataset = dataset.batch(batch_size, drop_remainder=True).enumerate()
    dataset = dataset.map(together, num_parallel_calls=PREFETCHED)
    # No more, either: what a long buffer gathered during the steps would count as made in no time.
    return without_tuning(dataset.prefetch(PREFETCHED))


def network(name, shape, classes):
    """A compiled network, for soft labels."""
    import keras

    import zoo

    model = zoo.create_model(name, input_shape=shape, classes=classes)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    return model


def rate(step, batch_size, seconds, warm_up=4):
    """Images a second of a function that handles a batch."""
    for _ in range(warm_up):
        step()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return count * batch_size / (time.perf_counter() - start)


def measure(batch_size, rounds, seconds):
    """A row for each pipeline and network."""
    rows = []
    for name, (shape, classes, options, networks) in PIPELINES.items():
        # numpy: tensors of TensorFlow are nothing to the other backends' `train_on_batch`.
        batches = pipeline(shape, classes, options, batch_size).as_numpy_iterator()
        for model_name in networks:
            model = network(model_name, shape, classes)
            kept = next(batches)
            steps = {
                "pipeline": lambda batches=batches: next(batches),
                "step": lambda model=model, kept=kept: model.train_on_batch(*kept),
                "together": lambda model=model, batches=batches: model.train_on_batch(*next(batches)),
            }
            for step in steps.values():  # traced and compiled
                rate(step, batch_size, 0.0)
            results = {key: [] for key in steps}
            for _ in range(rounds):
                for key, step in steps.items():
                    results[key].append(rate(step, batch_size, seconds))
            row = {key: round(statistics.median(rates), 1) for key, rates in results.items()}
            rows.append({"images": name, "network": model_name, **row})
            print(rows[-1], flush=True)
    return rows


def table(results):
    """Markdown: images a second, and the pipeline's as a multiple of the step's."""
    lines = ["| images | network | pipeline | step | together | pipeline / step |", "| --- | --- |" + " ---: |" * 4]
    for row in results["rows"]:
        rates = " | ".join(f"{row[key]:,.0f}" for key in ("pipeline", "step", "together"))
        lines.append(f"| {row['images']} | `{row['network']}` | {rates} | {row['pipeline'] / row['step']:.1f} |")
    versions = results["versions"]
    lines.append("")
    lines.append(
        f"Images a second in batches of {results['batch_size']}, medians of {results['rounds']} rounds; "
        f"{results['backend']} {versions[results['backend']]}, TensorFlow {versions['tensorflow']}, "
        f"Keras {versions['keras']}, {results['machine']}, load {results['load']} at the start, {results['date'][:10]}."
    )
    return "\n".join(lines)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), default="jax")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print the table and measure nothing")
    options = parser.parse_args()
    if options.table:
        if not options.results.exists():
            sys.exit(f"{options.results} does not exist; run the script without --table first.")
        print(table(json.loads(options.results.read_text())))
        return
    for name in ("batch_size", "rounds", "seconds"):
        if getattr(options, name) <= 0:
            sys.exit(f"--{name.replace('_', '-')} must be above 0; given: {getattr(options, name)}.")
    os.environ["KERAS_BACKEND"] = options.backend
    from training.runs.environment import describe_run

    results = {
        **describe_run(),
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        # Others' work on the machine takes from all three alike.
        "load": round(os.getloadavg()[0], 1),
        "rows": measure(options.batch_size, options.rounds, options.seconds),
    }
    temporary = options.results.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, options.results)
    print(f"Wrote {options.results}")


if __name__ == "__main__":
    main()
