"""Names in Markdown: shown as they are, whatever they are made of."""

import re

from keras_apa._text import visible

# Underscores inside a word mean nothing, a colon something only in GitHub's `:smile:`.
_SPECIAL = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])|:(?=[\w+-]+:)")


def markdown(text):
    r"""Markdown that shows the text, also in a cell of a table and inside of emphasis.

    >>> print(markdown("APA* | <b>se_resnet8</b>"), markdown("a\nb"))
    APA\* \| \<b\>se_resnet8\</b\> a\\nb
    """
    return _SPECIAL.sub(r"\\\g<0>", visible(text, lines=False))


def code(text, in_table=False):
    r"""Markdown that shows the text as code.

    >>> print(code("cat `x`.keras"), code("a | b", in_table=True))
    `` cat `x`.keras `` `a \| b`
    """
    text = visible(text, lines=False)
    if in_table:
        text = text.replace("|", r"\|")
    if "`" not in text:
        return f"`{text}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", text))))
    return f"{fence} {text} {fence}"
