"""`conversation_extension`: single turns -> longer conversations, for students of chats.

The rows come shuffled, so neighbours are a random choice; each is used once. Only rows of one
question, without tools and with the same system prompt are joined. Held-out rows stay as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.data.row import Row


def join_conversations(rows: Iterable[Row], turns: int) -> Iterator[Row]:
    """Yield the rows with each `turns` single turns joined to one; the last may be shorter."""
    waiting: list[Row] = []
    for row in rows:
        if not _is_single(row):
            yield row
            continue
        if waiting and _read_system(waiting[0]) != _read_system(row):
            yield _join(waiting)
            waiting = []
        waiting.append(row)
        if len(waiting) == turns:
            yield _join(waiting)
            waiting = []
    if waiting:
        yield _join(waiting)


def _is_single(row: Row) -> bool:
    roles = [message.role for message in row.messages if message.role != "system"]
    return roles == ["user", "assistant"] and not row.tools and not row.messages[-1].tool_calls


def _read_system(row: Row) -> str | None:
    return row.messages[0].content if row.messages[0].role == "system" else None


def _join(rows: list[Row]) -> Row:
    first = rows[0]
    more = [message for row in rows[1:] for message in row.messages if message.role != "system"]
    same = all(row.domain == first.domain for row in rows)
    return replace(
        first,
        id="+".join(row.id for row in rows),
        messages=(*first.messages, *more),
        source=", ".join(row.source for row in rows),
        domain=first.domain if same else "",
    )
