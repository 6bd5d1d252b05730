"""Columns become one text; optional parts vanish without a trace where a column is empty."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.column_template import fill, parse_template
from pipeline.errors import StageError, TristillError, UsageError

# The example of the documents that the syntax comes from.
_PASSENGER = (
    "[[The passenger embarked from {Embarked}.]] [[Their age is {Age}.]] [[Their fare is ${Fare}.]]"
)


def fill_text(template: str, values: dict[str, Any]) -> str | None:
    return fill(parse_template(template), values, on="data.csv:2")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"Embarked": "S", "Age": "23", "Fare": ""},
            "The passenger embarked from S. Their age is 23.",
        ),
        ({"Embarked": "", "Age": 18, "Fare": 7.25}, "Their age is 18. Their fare is $7.25."),
        ({"Embarked": None, "Age": float("nan"), "Fare": 7}, "Their fare is $7."),
        ({"Embarked": "C"}, "The passenger embarked from C."),
        ({}, ""),
    ],
)
def test_optional_parts(values: dict[str, Any], text: str) -> None:
    assert fill_text(_PASSENGER, values) == text


def test_a_blank_line_goes_with_the_part_that_it_is_in() -> None:
    template = "{instruction}[[\n\nInput:\n{input}]]"
    assert fill_text(template, {"instruction": "Add.", "input": "1 2"}) == "Add.\n\nInput:\n1 2"
    assert fill_text(template, {"instruction": "Add.", "input": " "}) == "Add."


def test_braces_and_brackets_that_are_text() -> None:
    assert fill_text("{{{a}}} [b] [[[{a}]]]", {"a": "x"}) == "{x} [b] [x]"


def test_a_column_whose_text_looks_like_a_template_is_text() -> None:
    assert fill_text("{a}[[{b}]]", {"a": "{b} [[", "b": "]]"}) == "{b} [[]]"


def test_an_empty_column_that_is_not_optional_leaves_nothing() -> None:
    assert fill_text("{a} {b}", {"a": "x", "b": ""}) is None


@pytest.mark.parametrize("values", [{"b": 1}, {"a": ["x"]}, {"a": {"x": 1}}, {"a": b"x"}])
def test_a_column_that_cannot_be_used_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(StageError, match="'a'"):
        fill_text("{a}", values)


@pytest.mark.parametrize(
    "template", ["", "no column", "{a", "a}", "{}", "[[{a}", "{a}]]", "[[{a}[["]
)
def test_a_template_that_cannot_be_read(template: str) -> None:
    with pytest.raises(UsageError, match="template"):
        parse_template(template)


@given(template=st.text("ab{}[] \n", max_size=20), value=st.none() | st.text(max_size=3))
def test_any_text_is_a_template_or_an_error(template: str, value: str | None) -> None:
    try:
        assert isinstance(fill_text(template, {"a": value, "b": "x"}), str | None)
    except TristillError:
        return
