"""What a run says of itself: a line and a record per step, and the rows as the trainer got them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.data.encoding import read_tokenizer
from pipeline.errors import StageError
from pipeline.sft import progress
from pipeline.sft.arrow import read_split
from pipeline.sft.method import make_subject
from pipeline.sft.metrics import TokenCount, make_records, write_metrics
from pipeline.sft.progress import Progress
from pipeline.sft.reporting import prepare_reporters
from pipeline.sft.sample import make_sample
from pipeline.sft.step_line import EvaluationLine, StepLine, parse_line
from pipeline.sft.trainer import Trainer, make_trainer
from tests.sft.training import OPTIONS

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]


@pytest.fixture
def trainer(text: Path, dataset: Path, tmp_path: Path) -> Trainer:
    return make_trainer(
        make_subject(text, OPTIONS),
        read_split(dataset / "train.arrow"),
        options=OPTIONS,
        scratch=tmp_path,
        held_out=read_split(dataset / "held_out.arrow"),
    )


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "say", lines.append)
    return lines


def _count_s() -> Iterator[float]:
    yield from (2.0 * n for n in range(1000))


def test_a_line_and_a_record_per_step(trainer: Trainer, said: list[str], tmp_path: Path) -> None:
    clock = _count_s()
    trainer.add_callback(TokenCount())
    trainer.add_callback(Progress(lambda: next(clock)))
    trainer.args.eval_on_start = True
    trainer.train()
    judged, *lines = [parse_line(line) for line in said]
    assert isinstance(judged, EvaluationLine)
    assert judged.step == 0
    write_metrics(trainer.state.log_history, {"steps": 3}, tmp_path)
    first, *records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["step"], set(first)) == (0, {"step", "epoch", "eval_loss", "eval_accuracy"})
    names = {"step", "epoch", "loss", "accuracy", "learning_rate", "grad_norm", "tokens"}
    assert [record["step"] for record in records] == [1, 2, 3]
    assert [set(record) for record in records] == [names] * 3
    # One step is 8 of the 32 rows: three of them are not all, and no token counts twice.
    tokens = [len(row) for row in trainer.train_dataset["input_ids"]]
    assert sum(sorted(tokens)[:24]) <= sum(each["tokens"] for each in records) <= sum(tokens)
    for line, record in zip(lines, records, strict=True):
        assert isinstance(line, StepLine)
        assert (line.step, line.steps) == (record["step"], 3)
        for name in ("loss", "grad_norm", "learning_rate", "epoch"):
            assert getattr(line, name) == pytest.approx(record[name], rel=1e-3, abs=1e-3)
        assert line.eval_loss == pytest.approx(first["eval_loss"], rel=1e-3)
        assert line.tokens_per_s > 0
        assert line.peak_mb > 50
    assert lines[-1].left_s == 0  # type: ignore[union-attr]


def test_a_record_joins_what_was_logged_of_its_step() -> None:
    history: list[dict[str, Any]] = [
        {"step": 0, "eval_loss": 3.0, "eval_runtime": 9.9},
        {"step": 1, "epoch": 0.5, "loss": 2.0, "grad_norm": 1.0, "entropy": 4.0, "tokens": 7},
        {"step": 1, "epoch": 0.5, "eval_loss": 1.5, "eval_mean_token_accuracy": 0.25},
        {"step": 2, "epoch": 1.0, "train_runtime": 12.0, "total_flos": 1.0},
    ]
    assert make_records(history) == [
        {"step": 0, "epoch": 0.0, "eval_loss": 3.0},
        {
            **{"step": 1, "epoch": 0.5, "loss": 2.0, "grad_norm": 1.0, "tokens": 7},
            **{"eval_loss": 1.5, "eval_accuracy": 0.25},
        },
    ]


def test_the_sample_shows_what_the_trainer_is_given(
    trainer: Trainer, text: Path, dataset: Path
) -> None:
    with pa.memory_map(str(dataset / "train.arrow")) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    tokenizer = read_tokenizer(text)
    shown = make_sample(trainer, tokenizer)
    assert len(shown) == 3
    for row in shown:
        there = rows[row["row"]]
        assert row["tokens"] == len(there["input_ids"])
        assert row["supervised"] == sum(there["completion_mask"])
        taught = [
            each
            for each, mask in zip(there["input_ids"], there["completion_mask"], strict=True)
            if mask
        ]
        wanted = tokenizer.decode(taught, skip_special_tokens=False)
        assert "".join(text for text, supervised, _ in row["pieces"] if supervised) == wanted
        assert wanted.endswith("</s>")


def test_a_reporter_that_is_not_in_the_image_is_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not in the image") as caught:
        prepare_reporters(("tensorboard", "mlflow"), tmp_path / "reports")
    assert caught.value.on == "train.report_to: tensorboard, mlflow"
    assert not (tmp_path / "reports").exists()
    prepare_reporters((), tmp_path / "reports")
