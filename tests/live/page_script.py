"""The script of a page: its blocks of one language, one behind the other, and what they say that they print."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str, replaced: Mapping[str, str]) -> str:
    """Give the blocks of a page with these texts, which must be there, replaced by others."""
    found = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    text = "\n".join(found)
    for old, new in replaced.items():
        assert old in text, f"{page} has no {old}"
        text = text.replace(old, new)
    return text


def printed(script: str) -> Iterator[str]:
    """Give what stands in the comment behind each `print` of a script."""
    is_print, is_first = False, True
    for token in tokenize.generate_tokens(io.StringIO(script).readline):
        if token.type == tokenize.NEWLINE:
            is_first = True
        elif token.type == tokenize.COMMENT:
            if is_print and not is_first:
                yield token.string.removeprefix("# ")
        elif is_first and token.type == tokenize.NAME:
            is_first, is_print = False, token.string == "print"
