"""A canonical row is the same row again after it was written; anything else is refused."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.data.row import Message, Row, ToolCall, parse_row, write_row
from pipeline.errors import StageError

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_JSON = st.dictionaries(_TEXT, st.none() | st.booleans() | st.integers() | _TEXT)
_CALLS = st.builds(ToolCall, id=_TEXT, name=_TEXT, arguments=_JSON)
_MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=_TEXT,
    thinking=st.none() | _TEXT,
    tool_calls=st.lists(_CALLS, max_size=2).map(tuple),
    tool_call_id=st.none() | _TEXT,
    name=st.none() | _TEXT,
)
_NAMES = {"id": _TEXT, "source": _TEXT, "domain": _TEXT}
_CONVERSATIONS = st.builds(
    Row,
    **_NAMES,
    messages=st.lists(_MESSAGES, min_size=1, max_size=3).map(tuple),
    tools=st.lists(_JSON, max_size=2).map(tuple),
    problem=st.none() | _TEXT,
    solution=st.none() | _TEXT,
)
_ROWS = st.one_of(_CONVERSATIONS, st.builds(Row, **_NAMES, text=_TEXT))


@example(row=Row(id="1", messages=(Message(role="user", content=""),), problem="", solution=""))
@given(row=_ROWS)
def test_a_row_survives_its_line(row: Row) -> None:
    line = write_row(row)
    assert "\n" not in line
    assert parse_row(line.encode()) == row


def test_keys_are_in_a_fixed_order_and_absent_ones_are_left_out() -> None:
    messages = (Message(role="user", content="é"), Message(role="assistant", content="a"))
    row = Row(id="1", messages=messages, source="f:1")
    assert write_row(row) == (
        '{"id": "1", "messages": [{"role": "user", "content": "é"}, '
        '{"role": "assistant", "content": "a"}], "source": "f:1"}'
    )


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"id": "1"},
        {"messages": [{"role": "user", "content": "q"}]},
        {"id": "1", "text": "t", "messages": [{"role": "user", "content": "q"}]},
        {"id": "1", "text": 7},
        {"id": "1", "text": "t", "colour": "red"},
        {"id": "1", "messages": [{"role": "judge", "content": "q"}]},
        {"id": "1", "messages": [{"role": "user", "content": None}]},
        {"id": "1", "messages": "q"},
    ],
)
def test_what_is_no_canonical_row_is_refused(document: object) -> None:
    with pytest.raises(StageError, match="no canonical row"):
        parse_row(json.dumps(document))
