"""Each format that people write becomes the canonical row, by its declaration or its columns."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.formats import find_format, make_row
from pipeline.data.row import Message, Row, ToolCall, parse_row, write_row
from pipeline.data.source import AUTO, FORMATS, TEMPLATE, Source
from pipeline.errors import StageError

_TURNS = (Message(role="user", content="q"), Message(role="assistant", content="a"))
_THOUGHT = (Message(role="user", content="q"), Message(role="assistant", content="a", thinking="t"))
_SYSTEM = Message(role="system", content="s")


def make(record: dict[str, Any], **declared: Any) -> Row:
    source = Source(**declared)
    form = find_format(record, source, on="f:1")
    return make_row(record, form, source, row_id="1", where="f:1")


@pytest.mark.parametrize(
    ("columns", "form", "messages"),
    [
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            "messages",
            _TURNS,
        ),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            "sharegpt",
            _TURNS,
        ),
        ({"instruction": "q", "input": "", "output": "a"}, "alpaca", _TURNS),
        ({"prompt": "q", "completion": "a"}, "prompt_completion", _TURNS),
        ({"prompt": "q", "response": "a", "text": "qa"}, "prompt_completion", _TURNS),
        (
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            "prompt_completion",
            _TURNS,
        ),
        ({"problem": "q", "thinking": "t", "solution": "a"}, "reasoning", _THOUGHT),
        ({"prompt": "q", "completion": "<think>\nt\n</think>\na"}, "prompt_completion", _THOUGHT),
    ],
)
def test_formats_are_recognised(
    columns: dict[str, Any], form: str, messages: tuple[Message, ...]
) -> None:
    assert find_format(columns, Source(), on="f:1") == form
    assert make(columns) == Row(id="1", messages=messages, source="f:1")


def test_raw_text() -> None:
    assert make({"text": "Once.", "domain": "tales"}) == Row(
        id="1", text="Once.", source="f:1", domain="tales"
    )


def test_declared_columns_and_names() -> None:
    columns = {"question": "q", "cot": "t", "answer": "a"}
    assert make(columns, columns=("question", "cot", "answer")).messages == _THOUGHT
    renamed = make(
        {"question": "q", "answer": "a"}, rename=("question=prompt", "answer=completion")
    )
    assert renamed.messages == _TURNS
    written = make({"q": "1", "a": 7}, prompt="What is {q}?", completion="{a}.")
    assert [message.content for message in written.messages] == ["What is 1?", "7."]


def test_a_system_prompt_of_the_row_goes_before_the_recipes() -> None:
    columns = {"prompt": "q", "completion": "a"}
    assert make(columns, system="s").messages == (_SYSTEM, *_TURNS)
    assert make({**columns, "system": "own"}, system="s").messages[0].content == "own"
    asked = [{"role": "developer", "content": "own"}, {"role": "user", "content": "q"}]
    messages = make({"messages": asked}, system="s").messages
    assert [message.content for message in messages] == ["own", "q"]


def test_alpaca_with_input_and_history() -> None:
    row = make({"instruction": "q", "input": "i", "output": "a", "history": [["q1", "a1"]]})
    assert [message.content for message in row.messages] == ["q1", "a1", "q\n\ni", "a"]


@pytest.mark.parametrize("as_text", [False, True])
def test_tool_calls_and_their_results(as_text: bool) -> None:
    arguments: Any = {"city": "Paris", "days": 2}
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": None}}]
    if as_text:
        arguments, tools = json.dumps(arguments), json.dumps(tools)
    call = {"id": "abc123def", "type": "function"}
    row = make(
        {
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {**call, "function": {"name": "weather", "arguments": arguments}}
                    ],
                },
                {"role": "tool", "content": "sun"},
                {"role": "assistant", "content": "a"},
            ],
            "tools": tools,
        }
    )
    called = ToolCall(id="abc123def", name="weather", arguments={"city": "Paris", "days": 2})
    assert row.messages[1] == Message(role="assistant", content="", tool_calls=(called,))
    assert row.messages[2] == Message(
        role="tool", content="sun", tool_call_id="abc123def", name="weather"
    )
    assert row.tools == ({"type": "function", "function": {"name": "weather"}},)


def test_sharegpt_calls_get_ids_that_mistral_reads() -> None:
    row = make(
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
                {"from": "observation", "value": "1"},
                {"from": "gpt", "value": "a"},
            ]
        }
    )
    assert row.messages[1].tool_calls == (ToolCall(id="000000000", name="f", arguments={}),)
    assert row.messages[2].tool_call_id == "000000000"


@pytest.mark.parametrize(
    "turn",
    [
        {"content": "a", "reasoning_content": "t"},
        {"content": "a", "thinking": "t"},
        {"content": "<think>\nt\n</think>\na"},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]},
                {"type": "text", "text": "a"},
            ]
        },
    ],
)
def test_thinking_is_found_where_teachers_put_it(turn: dict[str, Any]) -> None:
    user = {"role": "user", "content": "q"}
    assert make({"messages": [user, {"role": "assistant", **turn}]}).messages == _THOUGHT


@pytest.mark.parametrize(
    "text",
    ["<think>t</think>a", "x<think>\nt\n</think>\na", "<think>\n\n</think>\n\na", "</think>"],
)
def test_a_think_block_that_would_not_come_back_stays_text(text: str) -> None:
    row = make({"prompt": "q", "completion": text})
    assert row.messages[1] == Message(role="assistant", content=text)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"colour": "red"}, "not recognised"),
        ({}, "not recognised"),
        ({"messages": "q"}, "not JSON"),
        ({"messages": {"role": "user"}}, "no list"),
        ({"messages": [7]}, "turn is no object"),
        ({"messages": [{"role": "judge", "content": "q"}]}, "role is unknown"),
        ({"messages": [{"content": "q"}]}, "role is unknown"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "no text"),
        ({"messages": [{"role": "user", "content": 7}]}, "no list"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": 1}]}]}, "no name"),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]},
                ]
            },
            "not JSON",
        ),
        ({"messages": [{"role": "tool", "content": "1"}]}, "not asked"),
        ({"messages": [{"role": "assistant", "content": "<think>", "thinking": "t"}]}, "twice"),
        ({"instruction": "q", "output": 7}, "not text"),
        ({"instruction": "q", "output": "a", "history": 5}, "no list"),
        ({"instruction": "q", "output": "a", "history": [["q"]]}, "pairs"),
        ({"prompt": "q", "completion": ["a"]}, "not text"),
        ({"problem": "q", "thinking": "t", "solution": "</think>"}, "contains </think>"),
        ({"text": 7}, "not text"),
    ],
)
def test_a_row_that_is_not_what_it_says_is_named(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said) as caught:
        make(columns)
    assert caught.value.on.startswith("f:1")


_PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}


def test_preference_pairs_are_understood() -> None:
    assert find_format(_PAIR, Source(), on="f:1") == "preference"
    assert make(_PAIR).messages == _TURNS
    turns = [{"role": "user", "content": "q"}]
    sides = {
        side: [*turns, {"role": "assistant", "content": text}]
        for side, text in (("chosen", "a"), ("rejected", "b"))
    }
    assert make(sides).messages == _TURNS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rejected": "a"}, "prefers nothing"),
        ({"prompt": None}, "no conversation"),
        ({"chosen": [{"role": "user", "content": "q"}]}, "no conversation"),
        (
            {
                "chosen": [
                    {"role": "user", "content": "other"},
                    {"role": "assistant", "content": "a"},
                ]
            },
            "different prompts",
        ),
    ],
)
def test_a_pair_that_is_none(change: dict[str, Any], said: str) -> None:
    with pytest.raises(StageError, match=said):
        make({**_PAIR, **change})


def test_a_null_that_arrow_filled_in_is_no_argument() -> None:
    call = {"name": "f", "arguments": {"x": 1, "y": None}}
    row = make(
        {
            "messages": [
                {"role": "user", "content": "q", "tool_calls": None},
                {"role": "assistant", "content": "", "tool_calls": [call]},
            ]
        }
    )
    assert json.loads(write_row(row))["messages"][1]["tool_calls"][0]["arguments"] == {"x": 1}


_COLUMNS = (
    *("messages", "conversations", "instruction", "input", "output", "history", "prompt", "text"),
    *("completion", "problem", "thinking", "solution", "chosen", "rejected", "tools", "system"),
)
_KEYS = (
    *("role", "from", "content", "value", "thinking", "tool_calls", "tool_call_id", "name", "type"),
    *("function", "arguments", "id", "text"),
)
_WORDS = st.sampled_from(
    ["user", "assistant", "tool", "system", "gpt", "function_call", "f", "", "{}", "[1]", "text"]
) | st.text(max_size=3)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner),
    max_leaves=8,
)
_TURN = st.fixed_dictionaries(
    {"role": _WORDS}, optional={key: _VALUES for key in _KEYS if key != "role"}
)
_RECORDS = st.dictionaries(st.sampled_from(_COLUMNS), _VALUES | st.lists(_TURN, max_size=4))


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=50)
@given(record=_RECORDS)
def test_any_record_is_a_row_or_a_stage_error(form: str, record: dict[str, Any]) -> None:
    prompt, completion = ("{prompt}", "[[{completion}]]") if form == TEMPLATE else ("", "")
    source = Source(format=form, prompt=prompt, completion=completion)
    try:
        form = find_format(record, source, on="f:1") if form == AUTO else form
        row = make_row(record, form, source, row_id="1", where="f:1")
    except StageError:
        return
    if row.messages or row.text is not None:
        assert parse_row(write_row(row)) == row
