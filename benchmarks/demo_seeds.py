"""What each part of the method does to rare classes: five settings, several seeds, at the length of the demo.

    python benchmarks/demo_seeds.py                # 25 trainings, about a minute each on two CPU cores
    python benchmarks/demo_seeds.py --table        # the table, from the JSON file
    python benchmarks/demo_seeds.py --readme       # the same, written into the README
    python benchmarks/demo_seeds.py --confirm      # after a change that moves no number: 5 of the trainings again
    python benchmarks/demo_seeds.py --confirm --earlier FOLDER  # the same beside the code that measured the results

A training that stands in the JSON file is not run again, so an interrupted run is continued by the same command, unless
the code has changed since. `--confirm` trains the first seed of every setting with the present code. If no accuracy
differs, the results are kept as those of the present code. It needs the kind of processor that measured them, or in
FOLDER a checkout of the code that did, which then trains the same beside it.
The seed changes the start values, the order of the images and their augmentation; the images stay the same.
"""

import argparse
import ast
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"
START, END = "<!-- benchmarks/demo_seeds.py --readme -->\n", "\n<!-- end -->"
RESULTS = pathlib.Path(__file__).with_suffix(".json")
CROSS_ENTROPY, BALANCED = "SparseCategoricalCrossentropy", "BalancedSoftmaxCrossentropy"
# setting -> (options of the network, loss)
SETTINGS = {
    "Cross entropy": ({}, CROSS_ENTROPY),
    "Balanced Softmax": ({}, BALANCED),
    "APA* gate, cross entropy": ({"gate": "apa"}, CROSS_ENTROPY),
    "AGLU, cross entropy": ({"activation": "aglu"}, CROSS_ENTROPY),
    "APA* + AGLU, Balanced Softmax": ({"gate": "apa", "activation": "aglu"}, BALANCED),
}
GROUPS = ("many", "medium", "few", "all")
CODE = (
    "keras_apa/ops.py",
    "keras_apa/_kernels/*.py",
    "keras_apa/layers/activations.py",
    "keras_apa/layers/attention.py",
    "keras_apa/layers/gates.py",
    "keras_apa/layers/normalization.py",
    "keras_apa/losses/balanced.py",
    "zoo/blocks.py",
    "zoo/resnet.py",
    "zoo/cifar_resnet.py",
    "training/classification/network.py",
    "training/engine/optimizers.py",
    "training/data/classification/digits.py",
    "training/data/classification/pipeline.py",
    "training/data/classification/augmentation.py",
    "training/data/classification/preparation.py",
    "training/data/classification/samplers.py",
    "training/recipes/digits100_lt.py",
)


def run(seeds, path):
    """Train every setting with every seed, and write each result as soon as it is there."""
    from training.classification.train import train
    from training.recipes import get_recipe
    from training.runs.environment import describe_run

    code = fingerprint()
    results = json.loads(path.read_text()) if path.exists() else {"runs": {}, "code": code}
    if results.get("code") != code:
        print(f"{path} was measured with another version of the code: everything is measured again.", flush=True)
        results = {"runs": {}, "code": code}
    baseline = get_recipe("digits100_lt_baseline")
    for seed in seeds:
        for setting, (options, loss) in SETTINGS.items():
            key = f"{setting} | {seed}"
            if key in results["runs"]:
                continue
            recipe = baseline.replace(model=options, loss={"name": loss}, seed=seed)
            _, outcome = train(recipe)
            results["runs"][key] = {**accuracies(outcome), "seconds": round(outcome.seconds, 1)}
            results.update(describe_run(), epochs=recipe.epochs, model=recipe.model.name)
            write(path, results)
            print(key, results["runs"][key], flush=True)
    print(f"Wrote {path}")


def confirm(seeds, path, earlier=None):
    """Train every setting with the first seed; where no accuracy differs, the results are those of the present code.

    The results are those in `path`, which the same machine has to have measured, or with `earlier`, the folder of the
    code that measured them, what that code gives on this machine.
    """
    from training.runs.environment import describe_run

    results = json.loads(path.read_text())
    if earlier is not None and fingerprint(earlier) != results["code"]:
        sys.exit(f"The code in {earlier} is {fingerprint(earlier)}; the results were measured with {results['code']}.")
    for setting in SETTINGS:
        key = f"{setting} | {seeds[0]}"
        folders = [README.parent] if earlier is None else [README.parent, earlier]
        processes = [_start(folder, setting, seeds[0]) for folder in folders]  # side by side
        found = [json.loads(_read(process)) for process in processes]
        measured = found[1] if earlier is not None else {group: results["runs"][key][group] for group in GROUPS}
        if found[0] != measured:
            sys.exit(f"{key}: measured {measured}, now {found[0]}. Measure everything again: {sys.argv[0]}")
        print(key, found[0], "as measured" if earlier is None else "by both", flush=True)
    if results["code"] != fingerprint():
        now = describe_run()
        # Which code measured the results, and what was compared since.
        confirmed = {"measured_with": results["code"], "seed": seeds[0], "date": now["date"]}
        if earlier is not None:
            confirmed["side_by_side_on"] = now["machine"]
        results.update(code=fingerprint(), confirmed=confirmed)
        write(path, results)
    print(f"The results in {path} are those of the present code.")


# Code of before has `train` in another module.
_ONE_TRAINING = """
import json, sys
try:
    from training import train, get_recipe
except ImportError:
    from training.classification import train
    from training.recipes import get_recipe
options, loss, seed, groups = json.loads(sys.argv[1])
recipe = get_recipe("digits100_lt_baseline").replace(model=options, loss={"name": loss}, seed=seed)
accuracies = train(recipe)[1].accuracies
print(json.dumps({group: round(100 * accuracies[group], 2) for group in groups}))
"""


def _start(folder, setting, seed):
    """A process that trains one setting with the code in `folder`."""
    options, loss = SETTINGS[setting]
    return subprocess.Popen(
        [sys.executable, "-c", _ONE_TRAINING, json.dumps([options, loss, seed, GROUPS])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _read(process):
    """The last line that a process prints."""
    printed, _ = process.communicate()
    if process.returncode:
        sys.exit(f"A training failed with exit code {process.returncode}.")
    return printed.strip().splitlines()[-1]


def accuracies(outcome):
    """The accuracy of each group in percent, with two digits."""
    return {group: round(100 * outcome.accuracies[group], 2) for group in GROUPS}


def write(path, results):
    """Write the JSON file, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    os.replace(temporary, path)


def fingerprint(folder=README.parent):
    """A short hash of the code that these trainings run: results of different versions are not put into one table.

    Without docstrings, comments and types, which change no number. `folder` is another checkout, with its own list of
    files.
    """
    code = CODE
    if folder != README.parent:
        tree = ast.parse((folder / "benchmarks" / "demo_seeds.py").read_text(encoding="utf-8"))
        code = next(
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "CODE"
        )
    digest = hashlib.sha256()
    for pattern in code:
        files = sorted(folder.glob(pattern))
        assert files, pattern
        for file in files:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                body = getattr(node, "body", None)
                if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
                    if isinstance(body[0].value, ast.Constant):
                        del body[0]
            tree = _WithoutTypes().visit(tree)
            digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:12]


class _WithoutTypes(ast.NodeTransformer):
    """Takes out what only a type checker reads: no annotation is looked at while one of these files runs.

    So types can be added and made more exact without a training. What a name is imported for is not known here: the
    modules of types are left out whole, also where an older version of the code used one without an annotation.
    """

    MODULES = ("__future__", "collections.abc", "keras_apa._typing", "numpy.typing", "typing")

    def visit_FunctionDef(self, node):
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node):
        node.annotation = None
        return node

    def visit_AnnAssign(self, node):
        if node.value is None:
            return None
        return ast.Assign([node.target], self.visit(node.value))

    def visit_If(self, node):
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse:
            return None
        return self.generic_visit(node)

    def visit_ImportFrom(self, node):
        return None if node.module in self.MODULES and not node.level else node


def values(results, setting, group):
    """The results of a setting, one a seed, in the order of the seeds."""
    runs = {key.rpartition(" | ")[2]: run for key, run in results["runs"].items() if key.startswith(f"{setting} | ")}
    return [runs[seed][group] for seed in sorted(runs, key=int)]


def table(results):
    """Markdown: mean and standard deviation over the seeds, and the paired difference to cross entropy."""
    lines = ["| | many | medium | few | all | few, against cross entropy |", "| --- |" + " ---: |" * 5]
    reference = values(results, "Cross entropy", "few")
    for setting in SETTINGS:
        cells = []
        for group in GROUPS:
            numbers = values(results, setting, group)
            cells.append(f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f}")
        if setting == "Cross entropy":
            verdict = ""
        else:
            gains = [a - b for a, b in zip(values(results, setting, "few"), reference, strict=True)]
            mean, noise = statistics.mean(gains), statistics.stdev(gains)
            # Paired over the seeds: two standard errors of the mean difference.
            inside = abs(mean) < 2 * noise / len(gains) ** 0.5
            verdict = f"{mean:+.1f} ± {noise:.1f}" + (", inside the noise" if inside else "")
        lines.append(f"| {setting} | {' | '.join(cells)} | {verdict} |")
    seeds = len(reference)
    versions = results["versions"]
    lines.append("")
    lines.append(
        f"Test accuracy in percent, mean ± standard deviation over {seeds} seeds; `{results['model']}`, "
        f"{results['epochs']} epochs of `digits100_lt`, {results['backend']} {versions[results['backend']]}, "
        f"Keras {versions['keras']}, {results['machine']}, {results['date'][:10]}."
    )
    return "\n".join(lines)


def with_table(readme, results):
    """The text of the README with the table between its two marks."""
    return put_table(readme, START, table(results))


def put_table(page, start, text, end=END):
    """Replaces what stands between the markers `start` and `end` in the text `page` by `text`.

    Raises: ValueError: If the page has no such marker.
    """
    if start not in page:
        raise ValueError(f"the page has no line {start.strip()!r} behind which the table could stand")
    before, _, rest = page.partition(start)
    return before + start + text + end + rest.partition(end)[2]


def command_line(description, seeds, path, run, table, with_table, confirm=None, page=README, option="--readme"):
    """The command line of a comparison of several seeds: `run(seeds, path)`, or the table of what was run.

    `option` is the name of the option that writes the table into `page`.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), default="tensorflow")
    parser.add_argument("--results", type=pathlib.Path, default=path)
    parser.add_argument("--table", action="store_true", help="print the table and train nothing")
    parser.add_argument(
        option, dest="write", action="store_true", help=f"write the table into {page.name} and train nothing"
    )
    if confirm is not None:
        parser.add_argument("--confirm", action="store_true", help="train one seed; keep the results if none differs")
        parser.add_argument("--earlier", type=pathlib.Path, help="with --confirm: a checkout of the code that measured")
    options = parser.parse_args()
    if options.table or options.write:
        if not options.results.exists():
            sys.exit(f"{options.results} does not exist; run the script without --table first.")
        results = json.loads(options.results.read_text())
        if options.write:
            text = with_table(page.read_text(encoding="utf-8"), results)
            page.write_text(text, encoding="utf-8")
            print(f"Wrote {page}")
        else:
            print(table(results))
        return
    os.environ["KERAS_BACKEND"] = options.backend
    if getattr(options, "confirm", False):
        confirm(options.seeds, options.results, options.earlier and options.earlier.resolve())
    else:
        run(options.seeds, options.results)


if __name__ == "__main__":
    command_line(__doc__, [0, 1, 2, 3, 4], RESULTS, run, table, with_table, confirm)
