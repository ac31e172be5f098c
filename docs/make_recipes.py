"""Writes the table of the published experiments into docs/recipes.md, from the recipes.

python docs/make_recipes.py            # write it
python docs/make_recipes.py --check    # exit code 1 if the page is not up to date
"""

import argparse
import pathlib
import sys

from training.recipes import recipes

PAGE = pathlib.Path(__file__).parent / "recipes.md"
START, END = "<!-- docs/make_recipes.py -->\n", "<!-- end of recipes -->"
MEASURED = "not run: data set not at hand, GPU hours not stated"


def table():
    """One row for each recipe that repeats an experiment of a paper."""
    lines = ["| command | network, method | published top-1 | here |", "| --- | --- | --- | --- |"]
    for name, recipe in recipes().items():
        if ":" in recipe.published:
            about = f"`{recipe.model.name}`, {recipe.title}"
            lines.append(f"| `keras-apa train {name}` | {about} | {recipe.published} | {MEASURED} |")
    return "\n".join(lines) + "\n"


def with_table(text):
    """`text` with the table between the two markers."""
    before, rest = text.split(START)
    return before + START + table() + END + rest.split(END)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    if options.check:
        return int(with_table(text) != text)
    PAGE.write_text(with_table(text), encoding="utf-8")
    print(f"Wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
