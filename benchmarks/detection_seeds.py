"""What the loss of the regions does to a detector on the demo's scenes: three losses, several seeds.

    python benchmarks/detection_seeds.py                # 9 trainings, two minutes each on two CPU cores
    python benchmarks/detection_seeds.py --table        # the table, from the JSON file
    python benchmarks/detection_seeds.py --docs         # the same, written into docs/detection.md

A training that stands in the JSON file is not run again, so an interrupted run is continued by the same command. The
seed changes the start values, the order of the images and what is drawn in a step; the scenes stay the same.
"""

import json
import os
import pathlib
import statistics

from demo_seeds import command_line, put_table

# The page has another section with `demo_seeds.END`, that of benchmarks/detection.py.
START, END = "<!-- benchmarks/detection_seeds.py --docs -->\n", "\n<!-- end of detection_seeds.py -->"
PAGE = pathlib.Path(__file__).parents[1] / "docs" / "detection.md"
RESULTS = pathlib.Path(__file__).with_suffix(".json")
COLUMNS = {
    "box AP": "box_AP",
    "box APr": "box_APr",
    "box APc": "box_APc",
    "box APf": "box_APf",
    "box AP50f": "box_AP50f",
    "mask AP": "mask_AP",
}


def run(seeds, path):
    """Train every recipe of the demo with every seed, and write each result as soon as it is there."""
    from training.detection.report import presence_divergences
    from training.detection.train import load_source_of, train_detector
    from training.recipes.demo import detection_demo_recipes
    from training.runs.environment import describe_run

    results = json.loads(path.read_text()) if path.exists() else {"runs": {}}
    for seed in seeds:
        for recipe in detection_demo_recipes(seed=seed):
            key = f"{recipe.title} | {seed}"
            if key in results["runs"]:
                continue
            source = load_source_of(recipe)
            _, outcome = train_detector(recipe, source)
            divergence = presence_divergences(source.test_annotations, outcome.results)["all"]
            results["runs"][key] = {
                **{name: round(100 * outcome.metrics[name], 2) for name in COLUMNS.values()},
                "divergence": round(divergence, 5),
                "seconds": round(outcome.seconds, 1),
            }
            results.update(describe_run(), epochs=recipe.epochs, model=recipe.model.backbone)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(results, indent=1) + "\n")
            os.replace(temporary, path)
            print(key, results["runs"][key], flush=True)
    print(f"Wrote {path}")


def values(results, title, name):
    """The results of a loss, one a seed, in the order of the seeds."""
    runs = {key.rpartition(" | ")[2]: run for key, run in results["runs"].items() if key.startswith(f"{title} | ")}
    return [runs[seed][name] for seed in sorted(runs, key=int)]


def table(results):
    """Markdown: mean and standard deviation over the seeds."""
    titles = list(dict.fromkeys(key.rpartition(" | ")[0] for key in results["runs"]))
    lines = [f"| | {' | '.join(COLUMNS)} | KL of P(obj, u) |", "| --- |" + " ---: |" * (len(COLUMNS) + 1)]
    for title in titles:
        cells = [_spread(values(results, title, name), 1) for name in COLUMNS.values()]
        cells.append(_spread(values(results, title, "divergence"), 4))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    seeds = len(values(results, titles[0], "seconds"))
    versions = results["versions"]
    lines.append("")
    lines.append(
        f"Percent, mean ± standard deviation over {seeds} seeds; Mask R-CNN on `{results['model']}`, "
        f"{results['epochs']} epochs of `digit_scenes_lt`, {results['backend']} {versions[results['backend']]}, "
        f"Keras {versions['keras']}, {results['machine']}, {results['date'][:10]}."
    )
    return "\n".join(lines)


def _spread(numbers, digits):
    spread = statistics.stdev(numbers) if len(numbers) > 1 else float("nan")
    return f"{statistics.mean(numbers):.{digits}f} ± {spread:.{digits}f}"


def with_table(page, results):
    """The text of the page with the table between its two markers; errors as `demo_seeds.put_table`."""
    return put_table(page, START, table(results), END)


if __name__ == "__main__":
    command_line(__doc__, [0, 1, 2], RESULTS, run, table, with_table, page=PAGE, option="--docs")
