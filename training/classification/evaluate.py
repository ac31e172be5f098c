"""Measures a classifier: accuracy by shot group, with and without prior correction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np

import keras_apa.losses
from keras_apa import ClassCounts
from keras_apa.metrics import ShotAccuracy
from training.classification.outcome import GROUPS
from training.config.classification import EvaluationOptions
from training.data.classification.naming import naming_unreadable
from training.data.classification.pipeline import evaluation_dataset
from training.data.classification.source import Source

TOP_K = 5


def evaluation_batches(model: keras.Model, source: Source, options: EvaluationOptions):
    """The test images in batches, as the model wants them."""
    return evaluation_dataset(
        source.test, options.batch_size, num_classes=source.num_classes, preprocessing=model.preprocessing
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Accuracies `many`, `medium`, `few`, `all` and `top5` (NaN for what cannot be), and what was seen.

    `uncorrected` are the accuracies without the model's prior correction, None where it has none.
    """

    accuracies: Mapping[str, float]
    uncorrected: Mapping[str, float] | None
    labels: Sequence[int]
    predictions: Sequence[int]


def evaluate(model: keras.Model, source: Source, options: EvaluationOptions | None = None) -> Evaluation:
    """Accuracies on the test images, with and without the prior correction that the model carries."""
    options = options or EvaluationOptions()
    batches = evaluation_batches(model, source, options)
    corrections = [layer for layer in model.layers if isinstance(layer, keras_apa.layers.PriorCorrection)]
    offset = sum(
        layer.tau * keras_apa.layers.prior_correction(layer.class_counts, layer.variant) for layer in corrections
    )
    batches_of_labels = []
    found: dict[str, list[np.ndarray]] = {"corrected": [], "uncorrected": []}
    with naming_unreadable(source):
        for images, targets in batches:
            # Batch by batch: the logits of all images times thousands of classes do not fit into memory.
            logits = np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(images.numpy())), "float64")
            batches_of_labels.append(targets.numpy())
            found["corrected"].append(_highest(logits))
            if corrections:
                found["uncorrected"].append(_highest(logits - offset))
    labels = np.concatenate(batches_of_labels)
    accuracies = {
        name: _accuracies(labels, np.concatenate(best), source.class_counts, options)
        for name, best in found.items()
        if best
    }
    return Evaluation(
        accuracies=accuracies["corrected"],
        uncorrected=accuracies.get("uncorrected"),
        labels=[int(label) for label in labels],
        predictions=[int(row[0]) for row in np.concatenate(found["corrected"])],
    )


def _highest(logits):
    """The `TOP_K` classes of each row, the highest first, the lower index first among equals."""
    return np.argsort(-logits, axis=-1, kind="stable")[:, :TOP_K]


def _accuracies(labels, best, class_counts, options):
    metric = shot_accuracy(options, class_counts)
    metric.update_state(labels, np.eye(len(class_counts), dtype="float32")[best[:, 0]])
    result = {group: float(value) for group, value in metric.result().items()}
    top5 = np.mean(np.any(best == labels[:, None], axis=1)) if len(class_counts) > TOP_K else float("nan")
    return {group: result[group] for group in GROUPS} | {"top5": float(top5)}


def shot_accuracy(options: EvaluationOptions, class_counts: ClassCounts | Sequence[int]) -> ShotAccuracy:
    """The metric with the recipe's thresholds."""
    return ShotAccuracy(class_counts, many_threshold=options.many_threshold, few_threshold=options.few_threshold)
