"""Tracked text is the plain text, and each of its characters knows where it came from."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.tracking import (
    TEMPLATE,
    UNKNOWN,
    Tracked,
    find_origin,
    join,
    mark_lost,
    read_runs,
    read_text,
    track,
)


def spell(text: str) -> list[tuple[str, int]]:
    """Return each character with its origin."""
    origins = [origin for length, origin in read_runs(text) for _ in range(length)]
    assert len(origins) == len(text)
    return list(zip(str.__str__(text), origins, strict=True))


def make_tracked() -> st.SearchStrategy[Tracked]:
    """Texts of few letters, so that what is sought is often there; upper case is the template's."""
    part = st.tuples(st.text("ab \n", max_size=4), st.integers(1, 3))
    plain = st.tuples(st.text("AB \n", max_size=4), st.just(TEMPLATE))
    parts = st.lists(part | plain, max_size=4)
    return parts.map(lambda made: join("", [track(text, origin) for text, origin in made]))


CUTS: dict[str, Callable[[str], Any]] = {
    "strip": lambda t: t.strip(),
    "strip letters": lambda t: t.strip("aA"),
    "lstrip": lambda t: t.lstrip(),
    "rstrip": lambda t: t.rstrip("\n"),
    "slice": lambda t: t[1:-1],
    "slice beyond": lambda t: t[2:100],
    "empty slice": lambda t: t[3:1],
    "letters": lambda t: list(t),
    "last": lambda t: t[-1:],
    "prefix": lambda t: t.removeprefix("a"),
    "suffix": lambda t: t.removesuffix("b"),
    "words": lambda t: t.split(),
    "two words": lambda t: t.split(None, 1),
    "split": lambda t: t.split("a"),
    "split once": lambda t: t.split("ab", 1),
    "rsplit": lambda t: t.rsplit("b", 1),
    "lines": lambda t: t.splitlines(),
    "lines with ends": lambda t: t.splitlines(True),
    "partition": lambda t: t.partition("ba"),
    "rpartition": lambda t: t.rpartition("a"),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@given(text=make_tracked())
def test_what_is_cut_keeps_its_origins(cut: Callable[[str], Any], text: Tracked) -> None:
    found, expected = cut(text), cut(str.__str__(text))
    assert found == expected
    parts = [found] if isinstance(found, str) else list(found)
    # Every part is a stretch of the text, in order.
    position, whole = 0, spell(text)
    for part in parts:
        spelled = spell(part)
        while whole[position : position + len(spelled)] != spelled:
            position += 1
            assert position <= len(whole), f"{part!r} is no stretch of {text!r}"
        position += len(spelled)


@given(left=make_tracked(), right=make_tracked())
def test_what_is_joined_keeps_its_origins(left: Tracked, right: Tracked) -> None:
    both = spell(left) + spell(right)
    assert spell(left + right) == both
    assert spell("A" + left) == [("A", TEMPLATE), *spell(left)]
    assert spell(left + "A") == [*spell(left), ("A", TEMPLATE)]
    assert spell(left * 2) == spell(2 * left) == spell(left) * 2
    assert spell(join("A", [left, right])) == [*spell(left), ("A", TEMPLATE), *spell(right)]
    assert spell(right.join([left, left])) == [*spell(left), *spell(right), *spell(left)]


@given(text=make_tracked(), new=make_tracked(), count=st.sampled_from([-1, 0, 1]))
def test_replacing_keeps_what_is_left(text: Tracked, new: Tracked, count: int) -> None:
    found = text.replace("ab", new, count)
    assert found == str.__str__(text).replace("ab", new, count)
    origins = {origin for _, origin in spell(text) + spell(new)}
    assert {origin for _, origin in spell(found)} <= origins


LOSSES: dict[str, Callable[[str], str]] = {
    "upper": lambda t: t.upper(),
    "title": lambda t: t.title(),
    "centre": lambda t: t.center(30),
    "backwards": lambda t: t[::-1],
    "percent": lambda t: "A%sA" % t,  # noqa: UP031
    "percent of": lambda t: (t + "%d") % 7,
    "format": lambda t: (t + "{}").format(7),
    "spread": lambda t: t.replace("", "-"),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
def test_what_loses_the_origins_says_so(lose: Callable[[str], str]) -> None:
    text = track("a[INST]", 5)
    found = lose(text)
    assert found == lose("a[INST]")
    assert {origin for _, origin in spell(found)} == {UNKNOWN}
    assert {origin for _, origin in spell(lose(track("a[INST]", TEMPLATE)))} == {TEMPLATE}


def test_values_of_all_kinds() -> None:
    value = track({"a": ["b", 1, None, {"c": "d"}]}, 4)
    assert value == {"a": ["b", 1, None, {"c": "d"}]}
    assert [spell(each) for each in (*value, value["a"][0])] == [[("a", 4)], [("b", 4)]]
    assert find_origin([1, {"x": [value["a"][3]]}]) == 4
    assert find_origin(["a", {"b": 1}]) == TEMPLATE
    assert spell(Tracked("a")) == [("a", UNKNOWN)]
    assert spell(mark_lost(["a"], track("b", 3))[0]) == [("a", UNKNOWN)]
    assert spell(mark_lost("a", "b")) == [("a", TEMPLATE)]
    assert spell(read_text([track("b", 3)])) == [(c, UNKNOWN) for c in "['b']"]
    assert spell(read_text([7])) == [(c, TEMPLATE) for c in "[7]"]
