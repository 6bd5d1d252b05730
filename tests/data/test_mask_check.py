"""The check agrees with the renderer on every template, and sees a mask that is wrong in one bit.

The one is made of the characters' origins, the other of decoded ids: they share no step.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import partition
from pipeline.data.fitting import Fitted, fit
from pipeline.data.mask_check import Borders, check_batch, check_row, read_borders
from pipeline.data.partition import Plan, list_parts, render_part
from pipeline.data.rendering import Renderer
from pipeline.data.row import Row
from pipeline.data.statistics import make_batch
from pipeline.data.style import Style
from pipeline.errors import StageError
from tests.data.arrow_files import SCHEMA
from tests.data.canonical import assistant, call, chat, result, user, write_canonical
from tests.data.families import FAMILIES, write_chosen
from tests.tiny_text import write_tokenizer

pytestmark = pytest.mark.train

WORDS = st.text(st.sampled_from("ab<é 水\n"), min_size=1, max_size=5).filter(
    lambda text: text == text.strip() and text != ""
)
THOUGHTS = st.none() | WORDS


@st.composite
def make_rows(draw: st.DrawFn) -> Row:
    turns = draw(st.lists(st.tuples(WORDS, WORDS, THOUGHTS), min_size=1, max_size=3))
    return chat(*(each for q, a, t in turns for each in (user(q), assistant(a, t))))


@pytest.fixture(scope="module", params=FAMILIES)
def renderer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp(request.param)
    write_chosen(folder, request.param)
    return Renderer(folder, Style())


def find_borders(renderer: Renderer) -> Borders:
    return read_borders(
        renderer.tokenizer, template=renderer.template.source, ends=frozenset(renderer.end_ids)
    )


def check(row: Row, ids: list[int], mask: list[int], renderer: Renderer, borders: Borders) -> None:
    values = ("r", "", "", ids, mask)
    arrays = [pa.array([each], f.type) for each, f in zip(values, SCHEMA, strict=True)]
    batch = make_batch(pa.record_batch(arrays, schema=SCHEMA))
    check_batch(batch, borders, renderer.tokenizer)
    check_row(row, ids, mask, borders=borders, tokenizer=renderer.tokenizer)


@settings(max_examples=40)
@given(row=make_rows(), data=st.data())
def test_one_wrong_bit(renderer: Renderer, row: Row, data: st.DataObject) -> None:
    borders = find_borders(renderer)
    got = renderer.render(row, on="row")
    check(row, got.input_ids, got.completion_mask, renderer, borders)
    at = data.draw(st.integers(0, len(got.input_ids) - 1))
    mask = list(got.completion_mask)
    mask[at] = 1 - mask[at]
    with pytest.raises(StageError) as caught:
        check(row, got.input_ids, mask, renderer, borders)
    assert caught.value.exit_code == 5


def test_every_wrong_bit_of_one_row(renderer: Renderer) -> None:
    row = chat(user("a b"), assistant("c", "d"), user("e"), assistant("f g"))
    got = renderer.render(row, on="row")
    assert list(_find_unseen(row, renderer)) == [], got


@pytest.mark.parametrize("name", ["mistral-v3", "mistral-v7-tekken", "mistral-v13", "qwen"])
def test_calls_pass(tmp_path: Path, name: str) -> None:
    write_chosen(tmp_path, name)
    made = Renderer(tmp_path, Style())
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    turns = (user("a"), call("add", {"x": "</s>"}), result("2"), assistant("b", "c"))
    row = chat(*turns, tools=(tool,))
    got = made.render(row, on="row")
    check(row, got.input_ids, got.completion_mask, made, find_borders(made))


def test_native_thinking_passes(tmp_path: Path) -> None:
    write_chosen(tmp_path, "mistral-v13")
    made = Renderer(tmp_path, Style(thinking="chunks"))
    row = chat(user("a"), assistant("b", "c[/THINK]"))
    got = made.render(row, on="row")
    check(row, got.input_ids, got.completion_mask, made, find_borders(made))


def test_raw_text_passes(renderer: Renderer) -> None:
    row = Row(id="r", text="  a\n[INST] b</s>")
    got = renderer.render(row, on="row")
    check(row, got.input_ids, got.completion_mask, renderer, find_borders(renderer))


def _find_unseen(row: Row, renderer: Renderer) -> Iterator[int]:
    """Yield the places of bits that could be wrong without an error."""
    got = renderer.render(row, on="row")
    borders = find_borders(renderer)
    for at in range(len(got.input_ids)):
        mask = list(got.completion_mask)
        mask[at] = 1 - mask[at]
        try:
            check(row, got.input_ids, mask, renderer, borders)
        except StageError:
            continue
        yield at


@pytest.mark.parametrize("at", [0, 1, -2, -1])
def test_the_stage_refuses_what_a_faulty_renderer_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    def fit_wrongly(*arguments: Any, **named: Any) -> list[tuple[Row, Fitted]]:
        ((row, fitted),) = fit(*arguments, **named)
        mask = list(fitted.completion_mask)
        mask[at] = 1 - mask[at]
        return [(row, replace(fitted, completion_mask=mask))]

    monkeypatch.setattr(partition, "fit", fit_wrongly)
    write_tokenizer(tmp_path / "text")
    row = replace(chat(user("1+1?"), assistant("2", "+")), source="a.jsonl:7")
    write_canonical(tmp_path / "train.jsonl", [row])
    plan = Plan(text=tmp_path / "text", style=Style(), sequence_length=99, too_long="drop")
    (part,) = list_parts(tmp_path / "train.jsonl")
    with pytest.raises(StageError, match="not the assistant's own") as caught:
        list(render_part(part, plan))
    assert caught.value.on.startswith("row r (a.jsonl:7), ")
    assert "1+1?" in caught.value.on
