"""A run that cannot end well is stopped where it shows, with the step and the reason."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.data.partition import SCHEMA
from pipeline.errors import StageError
from pipeline.sft.arrow import read_split
from pipeline.sft.guards import STILL_STEPS
from tests.sft.training import train

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]


def write_rows(path: Path, masks: list[list[int]]) -> Path:
    rows = [(f"r{n}", [1, 5, 2], mask, 3, sum(mask), "", "", False) for n, mask in enumerate(masks)]
    columns = zip(zip(*rows, strict=True), SCHEMA, strict=True)
    batch = pa.record_batch([pa.array(list(v), f.type) for v, f in columns], schema=SCHEMA)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_batch(batch)
    return path


@pytest.mark.parametrize(
    ("rate", "said"),
    [(1e38, "training diverges"), (1e30, "no gradient reaches the weights")],
)
def test_a_run_that_breaks_is_named_by_step(
    text: Path, dataset: Path, tmp_path: Path, rate: float, said: str
) -> None:
    with pytest.raises(StageError, match=said) as caught:
        train(text, dataset, tmp_path / "out", learning_rate=rate)
    # The rate is 0 in step 1 and wrecks the weights in step 2.
    assert caught.value.on.startswith("step 3: ")
    assert not list((tmp_path / "out").iterdir())


def test_a_loss_that_does_not_move_ends_the_run_early(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    changes = {"max_steps": STILL_STEPS + 10, "batch_size": 1, "gradient_accumulation": 1}
    with pytest.raises(StageError, match="the loss does not move") as caught:
        train(text, dataset, tmp_path / "still", learning_rate=1e-10, **changes)
    assert caught.value.on.startswith(f"step {STILL_STEPS}: ")
    assert "learning_rate" in caught.value.then
    # As small as anyone sets it, and still warming up: that moves.
    train(text, dataset, tmp_path / "slow", learning_rate=1e-5, warmup_steps=500, **changes)
    assert json.loads((tmp_path / "slow/metrics.json").read_text())["steps"] == STILL_STEPS + 10


@pytest.mark.parametrize("method", ["lora", "full"])
def test_weights_that_have_not_moved(
    method: str, text: Path, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(StageError, match="has learnt nothing"):
        train(text, dataset, tmp_path / "out", method=method, learning_rate=0.0, max_steps=1)
    assert not list((tmp_path / "out").iterdir())


def test_no_supervised_token(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not one token is supervised"):
        read_split(write_rows(tmp_path / "train.arrow", [[0, 0, 0], [0, 0, 0]]))


def test_a_row_without_a_supervised_token_is_named(tmp_path: Path) -> None:
    # Nothing comes before a row's first token that it could be predicted from.
    path = write_rows(tmp_path / "train.arrow", [[0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]])
    with pytest.raises(StageError, match="rows have no supervised token") as caught:
        read_split(path)
    assert "2 of 4 rows, the first is row 1" in caught.value.on
    assert len(read_split(path, limit=1)) == 1
