"""Trains the two presets of the package and writes them into it.

    python -m training.make_presets              # both, some minutes on two CPU cores
    python -m training.make_presets --output DIR # somewhere else

`se_resnet_digits100_lt` is what `keras-apa demo` trains as its second network (APA* gates, AGLU, Balanced Softmax),
`se_resnet_digits100_lt_baseline` is its first (cross entropy); recipes and numbers are those of the demo at seed 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import keras

import zoo
from training.classification.outcome import GROUPS
from training.classification.train import train
from training.recipes.demo import demo_recipes

PRESETS = ("se_resnet_digits100_lt_baseline", "se_resnet_digits100_lt")


def main() -> None:
    """Train and write both presets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(zoo.presets.FOLDER))
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    for name, recipe in zip(PRESETS, demo_recipes("se_resnet8", "digits100_lt", options.epochs, 0), strict=True):
        model, outcome = train(recipe, verbose=2)
        percent = {group: round(100 * accuracy, 2) for group, accuracy in outcome.accuracies.items() if group in GROUPS}
        folder = zoo.save_preset(
            model,
            options.output / name,
            metrics={f"accuracy_{group}": value for group, value in percent.items()},
            description=f"{recipe.title}: trained on `digits100_lt`, the long-tailed two-digit images of "
            "scikit-learn's handwritten digits, by "
            f"`python -m training.make_presets` ({recipe.epochs} epochs, seed {recipe.seed}, "
            f"{keras.config.backend()}). Accuracies in percent on its 2000 test images, whose noise goes beyond 0 and "
            "255 (cut to that range: about 2 less), by number of training images of the class: "
            "many (more than 100), medium, few (fewer than 20).",
            overwrite=True,
        )
        print(f"{percent}. Wrote {folder}", flush=True)


if __name__ == "__main__":
    main()
