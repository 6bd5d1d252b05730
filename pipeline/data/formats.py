"""A record -> a canonical row, by the format that the recipe declares or the columns show.

A row that is not what its format says is a StageError that names it. What it says may still be of
no use (empty, without thinking): that is the business of cleaning.py, which counts it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.data.column_template import fill, parse_template
from pipeline.data.messages import bad_row, parse_list, parse_messages, parse_tools
from pipeline.data.row import Message, Row
from pipeline.data.source import AUTO, PREFERENCE, TEMPLATE, Source
from pipeline.errors import StageError

# The first whose columns a row has. Preference pairs come before prompt_completion: both have a
# prompt; raw text comes last: other formats carry a rendered copy of the row.
_SHOWN_BY = (
    (PREFERENCE, ("chosen", "rejected")),
    ("messages", ("messages",)),
    ("sharegpt", ("conversations",)),
    ("sharegpt", ("conversation",)),
    ("reasoning", ("problem", "thinking", "solution")),
    ("alpaca", ("instruction", "output")),
    ("prompt_completion", ("prompt", "completion")),
    ("prompt_completion", ("prompt", "response")),
    ("text", ("text",)),
)

_COLUMNS = ("problem", "thinking", "solution")


def find_format(columns: Mapping[str, Any], source: Source, *, on: str) -> str:
    """Return the source's format: declared, or shown by the columns of its first row."""
    if source.format != AUTO:
        return source.format
    if source.prompt:
        return TEMPLATE
    if source.columns != _COLUMNS:
        return "reasoning"
    renamed = rename_columns(columns, source, on=on)
    for name, needed in _SHOWN_BY:
        if all(renamed.get(column) is not None for column in needed):
            return name
    raise StageError(
        "a source's format is not recognised",
        on=on,
        why=f"its columns are: {', '.join(map(str, columns)) or 'none'}",
        then="declare dataset.format in the recipe, with rename, columns or prompt and completion",
    )


def rename_columns(columns: Mapping[str, Any], source: Source, *, on: str) -> Mapping[str, Any]:
    """Return the columns under the names of the recipe's `rename`, each written "theirs=ours"."""
    if not source.rename:
        return columns
    renamed = dict(columns)
    for theirs, ours in (pair.split("=", 1) for pair in source.rename):
        if theirs not in columns:
            raise _no_column(theirs, columns, on)
        renamed[ours] = columns[theirs]
    return renamed


def make_row(
    columns: Mapping[str, Any], form: str, source: Source, *, row_id: str, where: str
) -> Row:
    """Return the record's canonical row.

    Raises StageError, naming `where`, when the record is not what the format says.
    """
    renamed = rename_columns(columns, source, on=where)
    values = _FORMS[form](renamed, source, where)
    messages = values.get("messages", ())
    if messages and messages[0].role != "system":
        system = renamed.get("system") or source.system
        if not isinstance(system, str):
            raise _no_text("system", renamed, where)
        if system:
            values["messages"] = (Message(role="system", content=system), *messages)
    domain = renamed.get(source.domain)
    return Row(
        id=row_id,
        source=where,
        domain=domain if isinstance(domain, str) else "",
        **values,
    )


def _no_column(column: str, columns: Mapping[str, Any], on: str) -> StageError:
    why = f"the row's columns are: {', '.join(map(str, columns)) or 'none'}"
    return bad_row(f"a row has no {column!r}", on=on, why=why)


def _no_text(column: str, columns: Mapping[str, Any], on: str) -> StageError:
    why = f"it is a {type(columns[column]).__name__}"
    return bad_row(f"column {column!r} is not text", on=on, why=why)


def _read_text(columns: Mapping[str, Any], column: str, on: str) -> str:
    """Return a column's text; "" for null, which cleaning then counts as empty."""
    if column not in columns:
        raise _no_column(column, columns, on)
    value = columns[column]
    if value is None or isinstance(value, str):
        return value or ""
    raise _no_text(column, columns, on)


def _make_turns(problem: str, answer: str, thinking: str | None = None) -> tuple[Message, ...]:
    return (
        Message(role="user", content=problem),
        Message(role="assistant", content=answer, thinking=thinking),
    )


def _read_messages(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    if "messages" not in columns:
        raise _no_column("messages", columns, on)
    return {
        "messages": parse_messages(columns["messages"], on=on),
        "tools": parse_tools(columns.get("tools"), on=on),
    }


def _read_sharegpt(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    found = [name for name in ("conversations", "conversation") if columns.get(name) is not None]
    if not found:
        raise _no_column("conversations", columns, on)
    return _read_messages({**columns, "messages": columns[found[0]]}, source, on)


def _read_alpaca(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    problem = _read_text(columns, "instruction", on)
    more = _read_text(columns, "input", on) if "input" in columns else ""
    problem = f"{problem}\n\n{more}" if more.strip() else problem
    pairs = parse_list(columns.get("history") or [], "the history", on=on)
    history = [message for pair in pairs for message in _make_pair(pair, on)]
    return {"messages": (*history, *_split(problem, _read_text(columns, "output", on)))}


def _make_pair(pair: Any, on: str) -> tuple[Message, ...]:
    if not isinstance(pair, list | tuple) or not all(isinstance(each, str) for each in pair):
        raise bad_row(
            "the history is no list of pairs of texts", on=on, why=f"it has {str(pair)[:80]}"
        )
    if len(pair) != 2:
        raise bad_row("the history is no list of pairs", on=on, why=f"one has {len(pair)} texts")
    return _split(*pair)


def _split(problem: str, text: str) -> tuple[Message, ...]:
    """Return the two turns, the answer parsed as a message's text is: with its think block."""
    turns = [{"role": "user", "content": problem}, {"role": "assistant", "content": text}]
    return parse_messages(turns, on="")


def _read_prompt_completion(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    answer = "completion" if "completion" in columns else "response"
    prompt, completion = columns.get("prompt"), columns.get(answer)
    if isinstance(prompt, list | tuple) and isinstance(completion, list | tuple):
        return _read_messages({**columns, "messages": [*prompt, *completion]}, source, on)
    texts = _read_text(columns, "prompt", on), _read_text(columns, answer, on)
    return {"messages": _split(*texts)}


def _read_reasoning(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    problem, thinking, solution = (_read_text(columns, each, on) for each in source.columns)
    for column, text in zip(source.columns[1:], (thinking, solution), strict=True):
        for mark in ("<think>", "</think>"):
            if mark in text:
                why = "the think block is written around the thinking by this project"
                raise bad_row(f"column {column!r} contains {mark}", on=on, why=why)
    return {"messages": _make_turns(problem, solution, thinking)}


def _read_raw_text(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    return {"text": _read_text(columns, "text", on)}


def _read_template(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    texts = (
        fill(parse_template(each), columns, on=on) for each in (source.prompt, source.completion)
    )
    problem, answer = (text or "" for text in texts)
    return {"messages": _split(problem, answer)}


def _read_preference(columns: Mapping[str, Any], source: Source, on: str) -> dict[str, Any]:
    """Return the chosen side's conversation, once both sides are proved to be of one prompt."""
    sides = [_read_side(columns, side, on) for side in ("chosen", "rejected")]
    if sides[0] == sides[1]:
        raise bad_row("a pair prefers nothing", on=on, why="chosen and rejected are the same")
    if sides[0][:-1] != sides[1][:-1]:
        why = "all turns before the last must be the same on both sides"
        raise bad_row("a pair's sides answer different prompts", on=on, why=why)
    return {"messages": sides[0], "tools": parse_tools(columns.get("tools"), on=on)}


def _read_side(columns: Mapping[str, Any], side: str, on: str) -> tuple[Message, ...]:
    answer, prompt = columns.get(side), columns.get("prompt")
    if isinstance(answer, str):
        answer = [{"role": "assistant", "content": answer}]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    messages = parse_messages(answer, on=f"{on}, {side}")
    if prompt and not any(message.role == "user" for message in messages):
        messages = (*parse_messages(prompt, on=f"{on}, prompt"), *messages)
    if len(messages) < 2 or messages[-1].role != "assistant":
        why = "it needs a prompt and must end in the assistant's turn"
        raise bad_row(f"a pair's {side} side is no conversation", on=on, why=why)
    return messages


_FORMS: dict[str, Callable[[Mapping[str, Any], Source, str], dict[str, Any]]] = {
    "messages": _read_messages,
    "sharegpt": _read_sharegpt,
    "alpaca": _read_alpaca,
    "prompt_completion": _read_prompt_completion,
    "reasoning": _read_reasoning,
    "text": _read_raw_text,
    PREFERENCE: _read_preference,
    TEMPLATE: _read_template,
}
