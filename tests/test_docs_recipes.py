"""The README's table of published experiments is what its script writes."""

import re

import make_recipes
import pytest

from training.recipes import recipes

pytestmark = pytest.mark.any_backend

README = make_recipes.README.read_text(encoding="utf-8")


def test_the_table_is_up_to_date():
    assert make_recipes.with_table(README) == README


def test_every_published_recipe_has_a_row_that_says_what_was_not_measured():
    rows = [line for line in README.splitlines() if line.startswith("| `keras-apa train ")]
    named = [re.match(r"\| `keras-apa train (\w+)`", row).group(1) for row in rows]
    assert named == [name for name, recipe in recipes().items() if ":" in recipe.published]
    assert all("not run" in row for row in rows)
