"""The table on the page of recipes is what its script writes, and the blocks of the page run."""

import re

import make_recipes
import pages
import pytest

from training.recipes import recipes

pytestmark = pytest.mark.any_backend

PAGE = make_recipes.PAGE.read_text(encoding="utf-8")


def test_the_table_is_up_to_date():
    assert make_recipes.with_table(PAGE) == PAGE


def test_every_published_recipe_has_a_row_that_says_what_was_not_measured():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `keras-apa train ")]
    named = [re.match(r"\| `keras-apa train (\w+)`", row).group(1) for row in rows]
    assert named == [name for name, recipe in recipes().items() if ":" in recipe.published]
    assert all("not run" in row for row in rows)


@pytest.mark.slow
def test_the_blocks_run(tmp_path):
    for command in pages.commands(make_recipes.PAGE):
        pages.keras_apa(tmp_path, command)
    run = tmp_path / "runs" / "digits10_lt"
    assert (run / "digits10_lt.keras").is_file() and (run / "report.md").is_file()
    printed = pages.python(tmp_path, pages.program(make_recipes.PAGE)).stdout
    assert 0 <= float(printed.splitlines()[-1]) <= 1
