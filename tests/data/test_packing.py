"""A packed row is computed as if it were alone; packs are full and forget no row."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.packing import collate_packs, pack_best_fit, pack_rows
from tests.tiny_text import CONTROL_TOKENS, write_text_checkpoint

pytestmark = pytest.mark.train

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoModelForCausalLM

    folder: Path = tmp_path_factory.mktemp("text")
    write_text_checkpoint(folder)
    made = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    return made.train()


def make_rows(lengths: Sequence[int]) -> list[dict[str, Any]]:
    draw = random.Random(1)
    rows = []
    for length in lengths:
        ids = [draw.randrange(len(CONTROL_TOKENS), 256) for _ in range(length)]
        prompt = draw.randrange(1, length)
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return rows


def compute(model: Any, batches: Sequence[dict[str, torch.Tensor]]) -> tuple[float, torch.Tensor]:
    """Return the loss summed over the batches' supervised tokens, and its whole gradient."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        given = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = model(**given, use_cache=False).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, batch["labels"][0, 1:], reduction="sum")
        loss.backward()
        total += float(loss.detach())
    gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    return total, torch.cat(gradients)


def test_a_pack_has_the_loss_and_the_gradient_of_its_rows(model: Any) -> None:
    rows = make_rows([5, 40, 2, 17, 17])
    alone, gradient = compute(
        model,
        [{name: torch.tensor([row[name]]) for name in ("input_ids", "labels")} for row in rows],
    )
    packed, packed_gradient = compute(model, [collate_packs(rows)])
    assert packed == pytest.approx(alone, rel=TOLERANCE)
    assert torch.allclose(packed_gradient, gradient, rtol=1e-3, atol=TOLERANCE)
    # And it would be told apart: without positions, each row sees the rows before it.
    batch = collate_packs(rows)
    del batch["position_ids"]
    leaking, _ = compute(model, [batch])
    assert abs(leaking - alone) > 10 * TOLERANCE * alone


def test_a_row_is_computed_as_if_it_were_alone(model: Any) -> None:
    rows = make_rows([9, 12])
    other = make_rows([9, 12, 9])[2]
    with torch.no_grad():
        logits = [
            model(**collate_packs([first, rows[1]]), use_cache=False).logits[0, 9:]
            for first in (rows[0], other)
        ]
    assert torch.equal(logits[0], logits[1])


def test_packs_of_an_arrow_file() -> None:
    rows = make_rows([30, 10, 20, 5, 60])
    packed = pack_rows(Dataset.from_list(rows), 40)
    found = [collate_packs([pack]) for pack in packed]
    assert sorted(batch["input_ids"].shape[1] for batch in found) == [25, 40, 60]
    assert packed["seq_lengths"][:] == [[30, 10], [20, 5], [60]]
    first = found[0]
    assert first["input_ids"][0].tolist() == rows[0]["input_ids"] + rows[1]["input_ids"]
    assert first["position_ids"][0].tolist() == [*range(30), *range(10)]
    assert first["labels"][0].tolist() == rows[0]["labels"] + rows[1]["labels"]


def test_the_first_token_of_a_row_carries_no_loss() -> None:
    rows = [{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [3, 4], "labels": [3, 4]}]
    assert collate_packs(rows)["labels"].tolist() == [[-100, 2, -100, 4]]


@pytest.mark.parametrize(
    ("lengths", "packs"),
    [
        ([], []),
        ([10], [[0]]),
        ([11, 3, 7], [[0], [2, 1]]),
        ([6, 4, 5, 5], [[0, 1], [2, 3]]),
        ([5, 7, 3, 2], [[1, 2], [0, 3]]),  # 3 goes where it fills, not where it came first
    ],
)
def test_best_fit(lengths: list[int], packs: list[list[int]]) -> None:
    assert pack_best_fit(lengths, 10) == packs


@given(lengths=st.lists(st.integers(1, 120), max_size=80), capacity=st.integers(1, 100))
def test_every_row_is_in_one_pack(lengths: list[int], capacity: int) -> None:
    packs = pack_best_fit(lengths, capacity)
    assert sorted(row for pack in packs for row in pack) == list(range(len(lengths)))
    sums = [sum(lengths[row] for row in pack) for pack in packs]
    assert all(n <= capacity or len(pack) == 1 for n, pack in zip(sums, packs, strict=True))
    # No two packs are half empty: the later one's rows would have fitted into the earlier.
    assert sum(2 * n <= capacity for n in sums) <= 1
