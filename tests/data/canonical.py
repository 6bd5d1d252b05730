"""Canonical rows in one line each, for tests that write conversations by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.data.row import Message, Row, ToolCall, write_row


def system(content: str) -> Message:
    return Message(role="system", content=content)


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str, thinking: str | None = None) -> Message:
    return Message(role="assistant", content=content, thinking=thinking)


def call(name: str, arguments: Mapping[str, Any], content: str = "") -> Message:
    made = ToolCall(id="call00001", name=name, arguments=arguments)
    return Message(role="assistant", content=content, tool_calls=(made,))


def result(content: str) -> Message:
    return Message(role="tool", content=content, tool_call_id="call00001")


def chat(*messages: Message, row_id: str = "r", tools: tuple[Mapping[str, Any], ...] = ()) -> Row:
    return Row(id=row_id, messages=messages, tools=tools)


def write_canonical(path: Path, rows: list[Row]) -> None:
    """Write a file of canonical rows."""
    path.write_bytes("".join(write_row(row) + "\n" for row in rows).encode("utf-8"))
