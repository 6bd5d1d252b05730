"""Which rows are of no use, and why: each rule has a name, each dropped row is counted under one.

Rules are pure functions of one row. `Counts` is what cleaning.json is written from: how many rows
were read, kept and dropped, by reason, with the places of the first few.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.messages import bad_row
from pipeline.data.row import Message, Row

NOT_UTF8 = "not UTF-8"
EMPTY_TEXT = "empty text"
EMPTY_PROMPT = "empty prompt"
EMPTY_ANSWER = "empty answer"
NO_THINKING = "no thinking"
NO_ANSWER_AT_END = "does not end in the assistant's turn"
NO_QUESTION = "no user turn before the assistant's"
TOO_LONG = "longer than max_characters"
EXACT_DUPLICATE = "exact duplicate"
NEAR_DUPLICATE = "near duplicate"
CONTAMINATED = "contains a held-out problem"
HELD_OUT_AGAIN = "of a held-out group"
NOT_SAMPLED = "not drawn, by its source's weight"

_EXAMPLES = 5
_THINK_BLOCK = re.compile(r"<think>(.*?)</think>", re.DOTALL)


@dataclass
class Counts:
    """Rows by what became of them."""

    read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, reason: str, where: str) -> None:
        """Count one row that is left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        places = self.examples.setdefault(reason, [])
        if len(places) < _EXAMPLES:
            places.append(where)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """One of the recipe's `keep`: "column=a|b" keeps those values, "column!=a" all others."""

    column: str
    values: frozenset[str]
    excludes: bool

    @property
    def reason(self) -> str:
        """How rows that it drops are counted."""
        verb = "is" if self.excludes else "is not"
        return f"{self.column} {verb} {'|'.join(sorted(self.values))}"


def parse_filter(text: str) -> Filter:
    """Return the filter; the recipe has checked that it has a "=" and a column."""
    column, _, values = text.partition("=")
    excludes = column.endswith("!")
    return Filter(
        column=column.removesuffix("!").strip(),
        values=frozenset(value.strip() for value in values.split("|")),
        excludes=excludes,
    )


def find_filtered(columns: Mapping[str, Any], filters: tuple[Filter, ...], *, on: str) -> str:
    """Return why the record's columns drop it; "" when they do not.

    Raises StageError when a filter's column does not exist: it would drop all, or nothing.
    """
    for each in filters:
        if each.column not in columns:
            why = f"keep names it; the row's columns are: {', '.join(map(str, columns)) or 'none'}"
            raise bad_row(f"a row has no {each.column!r}", on=on, why=why)
        if (_show(columns[each.column]) in each.values) == each.excludes:
            return each.reason
    return ""


def _show(value: Any) -> str:
    """Return the value as the recipe writes it: true and 1 as JSON does, null as nothing."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, default=str)


def find_fault(row: Row, line: str, *, max_characters: int, require_thinking: bool) -> str:
    """Return why the row, written as `line`, is of no use; "" when it is of use."""
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return NOT_UTF8
    if row.text is not None:
        fault = "" if row.text.strip() else EMPTY_TEXT
    else:
        fault = _find_fault_of_turns(row.messages, require_thinking=require_thinking)
    if not fault and max_characters and count_characters(row) > max_characters:
        return TOO_LONG
    return fault


def _find_fault_of_turns(messages: tuple[Message, ...], *, require_thinking: bool) -> str:
    roles = [message.role for message in messages]
    if not roles or roles[-1] != "assistant":
        return NO_ANSWER_AT_END
    if "user" not in roles[: roles.index("assistant")]:
        return NO_QUESTION
    for message in messages:
        is_blank = not message.content.strip() and not message.tool_calls
        if message.role == "user" and is_blank:
            return EMPTY_PROMPT
        if message.role == "assistant" and is_blank:
            return EMPTY_ANSWER
        if message.thinking is not None and not message.thinking.strip():
            return NO_THINKING
    return NO_THINKING if require_thinking and not _thinks(messages[-1]) else ""


def _thinks(message: Message) -> bool:
    block = _THINK_BLOCK.search(message.content)
    return message.thinking is not None or (block is not None and bool(block[1].strip()))


def count_characters(row: Row) -> int:
    """Return the characters of all that the row says."""
    texts = [row.text or ""]
    for message in row.messages:
        texts += [message.content, message.thinking or ""]
        texts += [json.dumps(call.arguments, ensure_ascii=False) for call in message.tool_calls]
    return sum(map(len, texts))
