"""Cards, time and advice, on the shapes of published models."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.estimate.advice import advise
from pipeline.estimate.estimate import estimate
from pipeline.estimate.gpus import GPUS, Gpu
from pipeline.estimate.outlook import Outlook, make_outlook
from pipeline.estimate.rows import RowCount
from pipeline.estimate.shape import Shape
from pipeline.estimate.step_time import count_token_flops, model_step_s
from pipeline.estimate.training import model_training
from pipeline.estimate.verdicts import find_longest
from pipeline.recipe.recipe import read_recipe
from tests.estimate.shapes import DEVSTRAL, make_form, read_shipped_shape

CARDS = {gpu.name: gpu for gpu in GPUS}
ROWS = RowCount(
    read=2326,
    train=2324,
    held_out=0,
    tokens=2324 * 1000,
    supervised_tokens=None,
    too_long_share=0.0,
)


@pytest.fixture(scope="module")
def shape() -> Shape:
    return read_shipped_shape(DEVSTRAL)


def look(folder: Path, *, price: float | None = None, **train: Any) -> Outlook:
    path = folder / "mine.toml"
    settings = "".join(f"{name} = {json.dumps(value)}\n" for name, value in train.items())
    path.write_text(
        f'[base]\nsource = "/absent/{DEVSTRAL}"\n[dataset]\nsource = "demo"\n[train]\n{settings}'
    )
    recipe = read_recipe(path, planning=True)
    return make_outlook(recipe, estimate(recipe, planning=True), rows=ROWS, price=price)


def test_the_flagship_needs_no_more_than_its_config(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found.steps == 1743
    assert found.verdicts[0].startswith("Fits a 24 GB card: yes, ")
    assert " of 24; sequence " in found.verdicts[0]
    assert [each.gpu.name for each in found.gpus if each.trains] == [gpu.name for gpu in GPUS]
    assert found.advice == ()


def test_the_verdict_tells_what_also_fits(shape: Shape, tmp_path: Path) -> None:
    card = CARDS["RTX 3090"]
    form = make_form()
    longest = find_longest(shape, form, card)
    assert f"sequence {longest:,} would also fit" in look(tmp_path).verdicts[0]
    fits = model_training(shape, make_form(sequence=longest)).total_bytes <= card.usable_bytes
    assert fits


def test_what_does_not_fit_says_what_would(tmp_path: Path) -> None:
    found = look(tmp_path, method="lora")
    assert found.verdicts[0].startswith("Fits a 24 GB card: no, ")
    assert found.advice[0] == 'to fit 24 GB: [train] method = "qlora"'
    assert "as it is, it fits 80 GB" in found.advice[1]


def test_advice_begins_with_what_changes_nothing(shape: Shape) -> None:
    card = CARDS["RTX 3090"]
    (first, *_) = advise(shape, make_form(batch_size=4, sequence=2048), card)
    assert "gradient_accumulation = " in first
    (first, *_) = advise(shape, make_form(sequence=32768), card)
    assert first.startswith("to fit 24 GB: [dataset] sequence_length = ")


def test_long_rows_at_a_high_rank_wait_in_the_host_s_memory(shape: Shape) -> None:
    """What the flagship is to reach on 24 GB: 8,192 tokens, rank 64."""
    form = make_form(rank=64, sequence=8192, optimizer="adamw_8bit")
    (first, *_) = advise(shape, form, CARDS["RTX 3090"])
    assert first.startswith("to fit 24 GB: [train] activation_offload = true, which learns the")
    (first, *_) = advise(shape, replace(form, offloads=True, sequence=65536), CARDS["RTX 3090"])
    assert "activation_offload" not in first


def test_advice_is_enough(shape: Shape) -> None:
    card = CARDS["RTX 4090"]
    form = make_form(method="lora", batch_size=4, sequence=16384)
    (first, *_) = advise(shape, form, card)
    assert " and " in first
    small = Gpu(name="x", nominal_gb=8, usable_bytes=8 << 30, bf16_flops=1, bandwidth_bytes_s=1)
    assert next(advise(shape, form, small)) == "no change of the recipe makes it fit 8 GB"


@pytest.mark.parametrize("slower, faster", [("RTX 3090", "RTX 4090"), ("A100", "H100")])
def test_a_faster_card_takes_less_time(shape: Shape, slower: str, faster: str) -> None:
    times = [
        model_step_s(shape, make_form(), CARDS[each], row_tokens=1000) for each in (slower, faster)
    ]
    assert times[0] > times[1]


def test_operations_are_two_for_each_weight_and_pass(shape: Shape) -> None:
    """Without checkpoints a frozen weight is passed twice, and attention is small beside it."""
    form = make_form(checkpointing=False, rank=1)
    found = count_token_flops(shape, form, row_tokens=1)
    embeddings = shape.vocabulary * shape.hidden
    weights = shape.count_parameters() - embeddings
    assert found == pytest.approx(4 * weights, rel=0.01)


def test_a_published_step_is_within_a_factor(shape: Shape) -> None:
    """11 s on an RTX 3090 for four rows of at most 2,048 tokens; their mean is not published."""
    low, high = (
        model_step_s(shape, make_form(), CARDS["RTX 3090"], row_tokens=each) for each in (300, 2048)
    )
    assert low < 11 < high


def test_cost_is_time_at_a_price(tmp_path: Path) -> None:
    found = look(tmp_path, price=0.5)
    for each in found.gpus:
        assert each.total_s is not None
        assert each.total_s == pytest.approx(1743 * each.step_s)
        assert each.cost == pytest.approx(each.total_s / 3600 * 0.5)


def test_a_server_is_told_the_contexts_that_fit(tmp_path: Path) -> None:
    told = look(tmp_path).verdicts[-1]
    assert told.startswith("Served by a 24 GB card: yes, ")
    found = re.search(r"context ([\d,]+) would also fit, .*; ([\d,]+) with a Q8_0 cache", told)
    assert found
    plain, smaller = (int(each.replace(",", "")) for each in found.groups())
    assert 8192 < plain < smaller


def test_packs_are_shortened_by_their_own_field(shape: Shape) -> None:
    (first, *_) = advise(shape, make_form(sequence=32768, packs=True), CARDS["RTX 3090"])
    assert "[train] pack_tokens = " in first
