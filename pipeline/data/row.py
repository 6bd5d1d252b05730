"""The canonical row: the one form that every later step reads, one JSON object a line.

UTF-8, keys in a fixed order, what is absent left out. A row is a conversation (`messages`, and
`tools` where the assistant may call some) or raw text, never both. `parse_row(write_row(row))` is
the row again. Standard library alone.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StageError

ROLES = ("system", "user", "assistant", "tool")

_ROW_KEYS = frozenset(
    ("id", "messages", "tools", "text", "source", "domain", "problem", "solution")
)
_MESSAGE_KEYS = frozenset(("role", "content", "thinking", "tool_calls", "tool_call_id", "name"))
_EMPTY_IS_ABSENT = ("source", "domain")


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call that the assistant makes; `arguments` is a JSON object, never its text."""

    id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn. `thinking` and `tool_calls`: assistant only; `tool_call_id`, `name`: tool only."""

    role: str
    content: str
    thinking: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row; `problem` and `solution` stand in held-out rows alone, for the evaluation."""

    id: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    text: str | None = None
    source: str = ""
    domain: str = ""
    problem: str | None = None
    solution: str | None = None


def write_row(row: Row) -> str:
    """Return the row's line, without its end."""
    document: dict[str, Any] = {"id": row.id}
    if row.messages:
        document["messages"] = [_write_message(each) for each in row.messages]
    if row.tools:
        document["tools"] = list(row.tools)
    for key in ("text", "source", "domain", "problem", "solution"):
        value = getattr(row, key)
        if value is not None and (value or key not in _EMPTY_IS_ABSENT):
            document[key] = value
    return json.dumps(document, ensure_ascii=False, allow_nan=False)


def _write_message(message: Message) -> dict[str, Any]:
    document: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking is not None:
        document["thinking"] = message.thinking
    if message.tool_calls:
        document["tool_calls"] = [vars(call) for call in message.tool_calls]
    for key in ("tool_call_id", "name"):
        if getattr(message, key) is not None:
            document[key] = getattr(message, key)
    return document


def parse_row(line: str | bytes, *, on: str = "a canonical row") -> Row:
    """Return the row of one line; StageError, naming `on`, for what `write_row` never writes."""
    try:
        document = _as(dict, json.loads(line), "the line")
        if not _ROW_KEYS.issuperset(document):
            raise ValueError(f"unknown key {min(document.keys() - _ROW_KEYS)!r}")
        messages = _as(list, document.pop("messages", []), "messages")
        tools = [_as(dict, each, "tools") for each in document.pop("tools", [])]
        row = Row(
            **_as_texts(document),
            messages=tuple(map(_parse_message, messages)),
            tools=tuple(tools),
        )
        if bool(row.messages) == (row.text is not None):
            raise ValueError("it needs either messages or text")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StageError(
            "a line is no canonical row",
            on=on,
            why=f"{type(error).__name__}: {error}",
            then="build the artifact rows again; pipeline/data/row.py says what a row is",
        ) from None
    return row


def _as(kind: type, value: Any, key: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{key} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def _as_texts(document: dict[str, Any]) -> dict[str, str]:
    for key, value in document.items():
        _as(str, value, key)
    return document


def _parse_message(document: Any) -> Message:
    _as(dict, document, "a message")
    if not _MESSAGE_KEYS.issuperset(document) or document["role"] not in ROLES:
        unknown = sorted(document.keys() - _MESSAGE_KEYS)
        raise ValueError(f"unknown role or keys {unknown} in a message")
    calls = _as(list, document.pop("tool_calls", []), "tool_calls")
    return Message(**_as_texts(document), tool_calls=tuple(map(_parse_call, calls)))


def _parse_call(document: Any) -> ToolCall:
    return ToolCall(
        id=_as(str, document["id"], "id"),
        name=_as(str, document["name"], "name"),
        arguments=_as(dict, document["arguments"], "arguments"),
    )


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file of canonical rows, one at a time."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield parse_row(line, on=f"{path.name}:{number}")
