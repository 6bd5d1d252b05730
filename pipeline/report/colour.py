"""Colour, where a person looks at a terminal and has not asked for none (https://no-color.org)."""

import os
import re
from collections.abc import Mapping
from typing import TextIO

_CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


def wants_colour(stream: TextIO) -> bool:
    """Whether what is written to the stream may be coloured."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def paint(text: str, colour: str) -> str:
    """Return the text in a colour."""
    return f"\033[{_CODES[colour]}m{text}\033[0m"


def paint_table(table: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a formatted table with its headings in bold, and in each of the named columns the
    first words in the colours that they have."""
    heading, ruler, *lines = table.splitlines()
    starts = {name: _find_word(heading, name) for name in columns}
    # From the right: the codes move what stands behind them.
    for name in sorted(starts, key=lambda each: -starts[each]):
        lines = [_paint_at(line, starts[name], columns[name]) for line in lines]
    return "\n".join([paint(heading, "bold"), ruler, *lines]) + "\n"


def _find_word(line: str, word: str) -> int:
    found = re.search(rf"(?<!\S){re.escape(word)}(?!\S)", line)
    assert found is not None, f"the table has no column {word!r}"
    return found.start()


def _paint_at(line: str, start: int, colours: Mapping[str, str]) -> str:
    word = re.match(r"\w+", line[start:])
    if word is None or word[0] not in colours:
        return line
    end = start + word.end()
    return line[:start] + paint(word[0], colours[word[0]]) + line[end:]
