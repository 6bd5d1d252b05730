"""A conversation as people write it (OpenAI, ChatML, ShareGPT) -> canonical messages.

Texts are kept as they are. A think block that opens an assistant's text becomes its `thinking` only
where `make_assistant_text` gives the same text back; any other stays part of the text. Arguments
of tool calls become objects, and calls without an id get one of nine digits, as Mistral wants.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.readers import load_json
from pipeline.data.row import Message, ToolCall
from pipeline.errors import StageError

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "tool_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "observation": "tool",
    "ipython": "tool",
}

# ShareGPT's turns whose text is a call.
_CALLS = ("function_call", "tool_call")

_ROLE_KEYS = ("role", "from")
_CONTENT_KEYS = ("content", "value")
_THINKING_KEYS = ("thinking", "reasoning_content", "reasoning")

_THINK = re.compile(r"<think>\n(.*?)\n</think>\n(.*)", re.DOTALL)


def bad_row(what: str, *, on: str, why: str) -> StageError:
    """Return the error for a row that is not what its format says."""
    return StageError(what, on=on, why=why, then="correct that row, or its format in the recipe")


def parse_messages(turns: Any, *, on: str) -> tuple[Message, ...]:
    """Return the messages of a list of turns; StageError for what is no turn."""
    turns = parse_list(turns, "the conversation", on=on)
    messages: list[Message] = []
    for number, turn in enumerate(turns, start=1):
        where = f"{on}, turn {number}"
        if not isinstance(turn, Mapping):
            raise bad_row("a turn is no object", on=where, why=f"it is a {type(turn).__name__}")
        messages.append(_parse_turn(turn, messages, on=where))
    return tuple(messages)


def parse_list(value: Any, what: str, *, on: str) -> Sequence[Any]:
    """Return a list that may be written as JSON text; data sets keep tools that way."""
    if isinstance(value, str):
        try:
            value = load_json(value)
        except ValueError as error:
            raise bad_row(f"{what} is text, but not JSON", on=on, why=str(error)) from None
    if not isinstance(value, list | tuple):
        raise bad_row(f"{what} is no list", on=on, why=f"it is a {type(value).__name__}")
    return value


def parse_tools(value: Any, *, on: str) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that the row offers; none for null."""
    if value is None or value == "":
        return ()
    tools = parse_list(value, "tools", on=on)
    for tool in tools:
        if not isinstance(tool, Mapping):
            raise bad_row("a tool is no object", on=on, why=f"it is a {type(tool).__name__}")
    return tuple(drop_nulls(tool) for tool in tools)


def drop_nulls(value: Any) -> Any:
    """Return the value without null members: Arrow fills one schema's gaps with them."""
    if isinstance(value, Mapping):
        return {key: drop_nulls(each) for key, each in value.items() if each is not None}
    return [drop_nulls(each) for each in value] if isinstance(value, list) else value


def split_thinking(text: str) -> tuple[str | None, str]:
    """Return thinking and rest of an assistant's text; None where no think block opens it.

    An empty block, by which some teachers say that they did not think, stays text.
    """
    match = _THINK.fullmatch(text)
    return (match[1], match[2]) if match and match[1].strip() else (None, text)


def _parse_turn(turn: Mapping[str, Any], before: Sequence[Message], *, on: str) -> Message:
    named = next((turn[key] for key in _ROLE_KEYS if turn.get(key) is not None), None)
    role = _ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        why = f"its role is {named!r}; known are {', '.join(sorted(_ROLES))}"
        raise bad_row("a turn's role is unknown", on=on, why=why)
    content = next((turn[key] for key in _CONTENT_KEYS if turn.get(key) is not None), None)
    if named in _CALLS:
        calls = _parse_calls(_parse_call_text(content, on=on), before, on=on)
        return Message(role=role, content="", tool_calls=calls)
    text, thinking = _parse_content(content, on=on)
    if role == "assistant":
        return _parse_assistant(turn, text, thinking, before, on=on)
    if role == "tool":
        return _parse_result(turn, text, before, on=on)
    if thinking is not None:
        raise bad_row("a turn thinks that is no assistant's", on=on, why=f"its role is {role}")
    return Message(role=role, content=text)


def _parse_content(content: Any, *, on: str) -> tuple[str, str | None]:
    """Return text and thinking of a content: text, null, or parts as OpenAI and Mistral write."""
    if content is None or isinstance(content, str):
        return content or "", None
    texts, thoughts = list[str](), list[str]()
    for part in parse_list(content, "a content", on=on):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "thinking":
            thoughts.append(_parse_content(part.get("thinking"), on=on)[0])
        else:
            why = f"it is {kind or type(part).__name__!r}; only text and thinking are read"
            raise bad_row("a part of a content is no text", on=on, why=why)
    return "".join(texts), "".join(thoughts) if thoughts else None


def _parse_assistant(
    turn: Mapping[str, Any],
    text: str,
    thinking: str | None,
    before: Sequence[Message],
    *,
    on: str,
) -> Message:
    for key in _THINKING_KEYS:
        if thinking is None and isinstance(turn.get(key), str) and turn[key].strip():
            thinking = turn[key]
    if thinking is None:
        thinking, text = split_thinking(text)
    elif "<think>" in text or "</think>" in text:
        why = "the row gives the thinking in a field, and its text has a think block as well"
        raise bad_row("a turn thinks twice", on=on, why=why)
    asked = turn.get("tool_calls")
    calls = _parse_calls(parse_list(asked, "tool_calls", on=on), before, on=on) if asked else ()
    return Message(role="assistant", content=text, thinking=thinking, tool_calls=calls)


def _is_call(value: Any) -> bool:
    return isinstance(value, Mapping) and (isinstance(value.get("name"), str))


def _parse_call_text(content: Any, *, on: str) -> Sequence[Any]:
    """Return ShareGPT's call or calls: an object, a list, or the JSON text of either."""
    if isinstance(content, str):
        try:
            content = load_json(content)
        except ValueError as error:
            raise bad_row("a tool call is not JSON", on=on, why=str(error)) from None
    return [content] if isinstance(content, Mapping) else parse_list(content, "a call", on=on)


def _parse_calls(
    calls: Sequence[Any], before: Sequence[Message], *, on: str
) -> tuple[ToolCall, ...]:
    known = sum(len(message.tool_calls) for message in before)
    return tuple(_parse_call(call, known + n, on=on) for n, call in enumerate(calls))


def _parse_call(call: Any, number: int, *, on: str) -> ToolCall:
    function = call.get("function", call) if isinstance(call, Mapping) else call
    if not _is_call(function):
        raise bad_row("a tool call has no name", on=on, why=f"it is {str(call)[:80]!r}")
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        try:
            arguments = load_json(arguments or "{}")
        except ValueError as error:
            raise bad_row("a call's arguments are not JSON", on=on, why=str(error)) from None
    if not isinstance(arguments, Mapping | None):
        why = f"they are a {type(arguments).__name__}"
        raise bad_row("a call's arguments are no object", on=on, why=why)
    given = call.get("id")
    return ToolCall(
        id=given if isinstance(given, str) and given else f"{number:09d}",
        name=function["name"],
        arguments=drop_nulls(arguments or {}),
    )


def _parse_result(
    turn: Mapping[str, Any], text: str, before: Sequence[Message], *, on: str
) -> Message:
    """Return a tool's answer; one without an id answers the first call that has none yet."""
    calls = {call.id: call.name for message in before for call in message.tool_calls}
    answered = {message.tool_call_id for message in before if message.role == "tool"}
    waiting = [each for each in calls if each not in answered]
    call_id, name = turn.get("tool_call_id"), turn.get("name")
    if not isinstance(call_id, str) or not call_id:
        call_id = next(iter(waiting), None)
    if call_id is None or (calls and call_id not in calls):
        why = "no call before it waits for an answer" if call_id is None else f"no call {call_id!r}"
        raise bad_row("a tool answers what was not asked", on=on, why=why)
    name = name if isinstance(name, str) and name else calls.get(call_id)
    return Message(role="tool", content=text, tool_call_id=call_id, name=name)
