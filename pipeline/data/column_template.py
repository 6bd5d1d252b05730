"""Columns of a row -> one text, by a template: `{column}`, `[[optional part]]`, `{{` and `}}`.

An optional part is left out, with the blanks after it, when one of its columns is missing or empty,
so that a row with gaps reads as if the gaps had never been. Outside of one, every column must have
a value. Standard library alone: the recipe is checked by the same parser.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pipeline.errors import StageError, UsageError

# A run of three or more brackets, as in "[[[x]]]", opens and closes with the outermost two.
_PIECES = re.compile(r"\{\{|\}\}|\[\[|\](?=\]\])|\]\]|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True)
class Part:
    """Texts and columns by turns: texts[0], columns[0], texts[1], ...; texts is one longer."""

    texts: tuple[str, ...]
    columns: tuple[str, ...]
    optional: bool


@dataclass(frozen=True)
class Template:
    parts: tuple[Part, ...]

    @property
    def columns(self) -> frozenset[str]:
        """Every column that the template names."""
        return frozenset(column for part in self.parts for column in part.columns)


@lru_cache(maxsize=64)
def parse_template(text: str) -> Template:
    """Return the template; UsageError for braces or brackets that do not pair, or no column."""
    parts: list[Part] = []
    texts, columns, optional, end = [""], list[str](), False, 0
    for match in _PIECES.finditer(text):
        texts[-1] += text[end : match.start()]
        end = match.end()
        piece = match[0]
        if piece in ("{{", "}}"):
            texts[-1] += piece[0]
        elif piece in ("[[", "]]"):
            if (piece == "[[") == optional:
                raise _bad_template(text, f"{piece} at character {match.start()} has no partner")
            parts.append(Part(tuple(texts), tuple(columns), optional))
            texts, columns, optional = [""], [], not optional
        elif match[1]:
            columns.append(match[1])
            texts.append("")
        elif piece == "]":
            texts[-1] += piece
        else:
            raise _bad_template(text, f"{piece} at character {match.start()} names no column")
    if optional:
        raise _bad_template(text, "the last [[ is never closed by ]]")
    texts[-1] += text[end:]
    parts.append(Part(tuple(texts), tuple(columns), optional))
    template = Template(tuple(part for part in parts if part.columns or part.texts != ("",)))
    if not template.columns:
        raise _bad_template(text, "it names no {column}, so every row would be the same")
    return template


def _bad_template(text: str, why: str) -> UsageError:
    return UsageError(
        "a column template cannot be read",
        on=repr(text),
        why=why,
        then="write {column} for a column, [[...]] around what is optional, {{ and }} for braces",
    )


def fill(template: Template, values: Mapping[str, Any], *, on: str) -> str | None:
    """Return the text, stripped; None when a column that is not optional is empty.

    Raises StageError when such a column does not exist, or a value is neither text nor number.
    """
    filled = ""
    swallow = False
    for part in template.parts:
        found = [_read_value(values, column, on=on) for column in part.columns]
        if part.optional and not all(found):
            swallow = not filled or filled[-1].isspace()
            continue
        for column, value in zip(part.columns, found, strict=True):
            if value is None and column not in values:
                raise _unknown_column(column, values, on)
        if not all(found):
            return None
        text = _join(part, [value or "" for value in found])
        filled += text.lstrip() if swallow else text
        swallow = False
    return filled.strip()


def _join(part: Part, found: list[str]) -> str:
    return part.texts[0] + "".join(
        value + text for value, text in zip(found, part.texts[1:], strict=True)
    )


def _read_value(values: Mapping[str, Any], column: str, *, on: str) -> str | None:
    """Return the column's text; None when it is missing or empty (a CSV's gap, null, NaN)."""
    value = values.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str | int | float):
        return str(value) if str(value).strip() else None
    raise StageError(
        f"column {column!r} is neither text nor number",
        on=on,
        why=f"it is a {type(value).__name__}",
        then="name another column in the recipe's template, or flatten that one",
    )


def _unknown_column(column: str, values: Mapping[str, Any], on: str) -> StageError:
    return StageError(
        f"a row has no column {column!r}",
        on=on,
        why=f"the row's columns are: {', '.join(map(str, values)) or 'none'}",
        then="correct the recipe's template, or put [[...]] around what may be missing",
    )
