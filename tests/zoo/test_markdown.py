"""Names in Markdown, read by a Markdown reader."""

import html
import re

import pytest
from markdown_it import MarkdownIt

from zoo._markdown import code, markdown

NAMES = [
    "APA* + AGLU", "*a*", "_cat_", "se_resnet8", "a|b", "<b>bold</b>", "`x`", "``", "a\\b", "\\", "&lt;", "~~x~~",
    "a_b_",
    "[a](b)", "![a](b)", "cup [/mug]", "# x", "- x", "猫 😀 é", "a'b\"c", "x`", "<!--", "__init__", "*", "a*b*c",
]  # fmt: skip
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(page, tag):
    return [html.unescape(re.sub(r"</?(code)>", "", cell)) for cell in re.findall(f"<{tag}>(.*?)</{tag}>", page)]


@pytest.mark.any_backend
def test_a_reader_shows_every_name_as_it_is():
    for name in NAMES:
        page = READER.render(f"| a | b |\n| --- | --- |\n| {markdown(name)} | {code(name, in_table=True)} |\n")
        assert shown(page, "td") == [name, name], page
        assert shown(READER.render(f"# {markdown(name)}"), "h1") == [name]
        assert shown(READER.render(f"*before ({markdown(name)}).*"), "em") == [f"before ({name})."]
        assert shown(READER.render(f"- {code(name)}: x"), "code") == [name]


@pytest.mark.any_backend
def test_a_name_stays_on_one_line_and_without_control_characters():
    assert markdown("a\nb\x1b") == r"a\\nb\\x1b" and code("a\nb\x1b") == r"`a\nb\x1b`"


@pytest.mark.any_backend
def test_what_is_common_in_names_stays_readable():
    assert markdown("se_resnet8 (0.1, x-y) 3: a/b.c") == "se_resnet8 (0.1, x-y) 3: a/b.c"
