"""Rows of plain text continue pretraining, with any method: every token is learnt but the BOS."""

from pathlib import Path

import pytest
import torch

from pipeline.data.row import Row
from pipeline.sft.arrow import read_split
from tests.data.canonical import write_canonical
from tests.sft.conftest import make_dataset
from tests.sft.training import start_trainer
from tests.tiny_text import BOS

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]


@pytest.fixture(scope="module")
def plain_text(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    rows: Path = tmp_path_factory.mktemp("rows")
    made = [Row(id=f"t{n}", text=f"The sky is blue{'.' * (n % 7)}") for n in range(20)]
    write_canonical(rows / "train.jsonl", made[:16])
    write_canonical(rows / "held_out.jsonl", made[16:])
    return make_dataset(text, rows, tmp_path_factory.mktemp("dataset"))


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_text_is_learnt(method: str, text: Path, plain_text: Path, tmp_path: Path) -> None:
    for row in read_split(plain_text / "train.arrow"):
        assert row["input_ids"][0] == BOS
        assert row["labels"] == [-100, *row["input_ids"][1:]]
    trainer = start_trainer(
        *(text, plain_text, tmp_path),
        method=method,
        learning_rate=1e-2 if method != "full" else 1e-3,
        max_steps=8,
    )
    trainer.train()
    losses = [each["loss"] for each in trainer.state.log_history if "grad_norm" in each]
    assert losses[-1] < 0.9 * losses[0]
    assert all(torch.isfinite(each).all() for each in trainer.model.parameters())
