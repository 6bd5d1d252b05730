"""A run that was ended, however, and gone on with writes the bytes of one that never was; and any
checkpoint of it can be taken without training again."""

import json
import random
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import CapacityError, StageError
from pipeline.sft.checkpoint_list import Evaluation
from pipeline.sft.checkpoints import Rhythm, find_state, sweep_area
from pipeline.sft.full_disk import answer_full_disk
from tests.sft.training import choose, make_places, read_files, run_here, start_run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

# Random numbers in every step, state in 8 bits, rows in another order in each epoch of four steps.
LONG: dict[str, Any] = {
    "method": "qlora",
    "optimizer": "adamw_8bit",
    "dropout": 0.1,
    "neftune_alpha": 5.0,
    "max_steps": 0,
    "epochs": 15.0,
    "checkpoint_steps": 7,
}
STEPS = 60


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, text: Path, dataset: Path) -> Path:
    """Return the folder of a run that was never ended."""
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    run_here(text, dataset, folder, **LONG)
    return folder


def _end_at(told: Iterator[str], step: int) -> None:
    assert any(f"step {step}/{STEPS}" in line for line in told), f"step {step} was never taken"


def test_killed_and_gone_on_with_is_the_same_to_the_byte(
    text: Path, dataset: Path, tmp_path: Path, undisturbed: Path
) -> None:
    """Killed, and then asked to end, each at a random step."""
    draw, folder, state = random.Random(7), tmp_path / "run", None
    for number in (signal.SIGKILL, signal.SIGTERM):
        at = (state.step if state else 0) + draw.randint(8, 12)
        with start_run(text, dataset, folder, **LONG) as running:
            assert running.stderr is not None
            _end_at(iter(running.stderr.readline, ""), at)
            running.send_signal(number)
            rest = running.stderr.read()
        assert running.returncode == -number, rest
        assert not any((folder / "out").iterdir())
        state = find_state(folder / "work")
        assert state is not None
        assert at - 4 <= state.step < STEPS
        if number == signal.SIGTERM:
            assert state.step >= at
            assert f"stopped after step {state.step}; the same command goes on" in rest
    assert state is not None
    with start_run(text, dataset, folder, **LONG) as running:
        _, told = running.communicate()
    assert running.returncode == 0, told
    assert f"goes on after step {state.step}" in told
    assert read_files(folder) == read_files(undisturbed)


def test_a_run_that_was_ended_after_its_last_step_takes_none(
    text: Path, dataset: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_files(undisturbed)
    monkeypatch.setattr("pipeline.sft.trainer.Trainer.train", None)
    run_here(text, dataset, undisturbed, **LONG)
    assert read_files(undisturbed) == before


def test_every_checkpoint_can_be_taken(undisturbed: Path, tmp_path: Path) -> None:
    files = read_files(undisturbed)
    entries = json.loads(files["checkpoints.json"])
    steps = [entry["step"] for entry in entries]
    assert steps == sorted({*range(4, 61, 4), *range(7, 61, 7)})
    best = min(entries, key=lambda entry: entry["loss"])
    right = max(entries, key=lambda entry: entry["accuracy"])
    for checkpoint, by, step in (
        ("last", "loss", 60),
        ("step:14", "loss", 14),
        ("epoch:2", "loss", 8),
        ("best", "loss", best["step"]),
        ("best", "accuracy", right["step"]),
    ):
        out = tmp_path / f"{checkpoint}-{by}"
        out.mkdir()
        choose(undisturbed, out, checkpoint, by)
        name = "adapter_model.safetensors"
        assert (out / name).read_bytes() == files[f"step-{step:06d}/{name}"]
        assert (out / "base.sha256").is_file()
        metrics = json.loads((out / "metrics.json").read_text())
        (entry,) = [entry for entry in entries if entry["step"] == step]
        assert (metrics["steps"], metrics["loss_after"]) == (step, entry["loss"])
        assert metrics["loss_before"] > metrics["loss_after"]


@pytest.mark.parametrize("checkpoint", ["step:5", "epoch:16"])
def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(
    undisturbed: Path, tmp_path: Path, checkpoint: str
) -> None:
    with pytest.raises(StageError, match="no such checkpoint") as caught:
        choose(undisturbed, tmp_path, checkpoint)
    assert checkpoint in caught.value.on
    assert "4, 7, 8, 12, 14" in caught.value.why
    assert "1, 2, 3" in caught.value.why


def test_training_ends_when_checkpoints_no_longer_get_better(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    """A rate that wrecks what the first steps have learnt; the best checkpoint is still there."""
    run_here(text, dataset, tmp_path, epochs=50.0, max_steps=0, learning_rate=0.3, patience=2)
    entries = json.loads((tmp_path / "out" / "checkpoints.json").read_text())
    losses = [entry["loss"] for entry in entries]
    assert len(entries) < 50
    assert losses.index(min(losses)) == len(losses) - 3
    before = read_files(tmp_path)
    run_here(text, dataset, tmp_path, epochs=50.0, max_steps=0, learning_rate=0.3, patience=2)
    assert read_files(tmp_path) == before


def test_patience_counts_from_the_best() -> None:
    def judge(losses: list[float], patience: int) -> bool:
        rhythm = Rhythm(every_steps=1, patience=patience, best_by="loss")
        found = [
            Evaluation(step=step, epoch=1.0, loss=loss, accuracy=0.0)
            for step, loss in enumerate(losses)
        ]
        return rhythm.ends_early(found)

    assert judge([3, 2, 2, 2], 2)
    assert not judge([3, 2, 2], 2)
    assert not judge([3, 2, 2, 1, 1], 2)
    assert not judge([3, 4, 5, 6], 0)
    assert not judge([], 1)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    changes = {"rank": 64, "checkpoint_steps": 1}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # More than the rows take, and less than the adapter.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(CapacityError, match="the disk is full") as caught:
            run_here(text, dataset, tmp_path, **changes)
        for write in (_write_archive, _write_tensors):
            with pytest.raises(CapacityError), answer_full_disk(tmp_path):
                write(tmp_path / "large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in caught.value.why
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["lock", "making"]
    run_here(text, dataset, tmp_path, **changes)
    assert (tmp_path / "out" / "step-000003" / "adapter_model.safetensors").is_file()


def _write_archive(path: Path) -> None:
    torch.save({"state": torch.zeros(100_000)}, path)


def _write_tensors(path: Path) -> None:
    save_file({"state": torch.zeros(100_000)}, path)


def _write_state(work: Path, step: int) -> Path:
    path = work / f"state-{step:06d}"
    path.mkdir(parents=True)
    (path / "optimizer.pt").write_bytes(b"1234")
    whole = {"files": {"optimizer.pt": 4}, "is_last": False, "devices": ["CPU"]}
    (path / "whole.json").write_text(json.dumps(whole))
    (work / f"step-{step:06d}").mkdir()
    return path


def test_a_damaged_state_is_passed_over_with_what_came_after_the_one_before(tmp_path: Path) -> None:
    out, work = make_places(tmp_path)
    older, newer = _write_state(work, 7), _write_state(work, 14)
    (work / "making" / "checkpoint-21").mkdir(parents=True)
    (newer / "optimizer.pt").write_bytes(b"12")
    state = find_state(work)
    assert state is not None
    assert (state.path, state.step) == (older, 7)
    sweep_area(work, state)
    assert sorted(path.name for path in work.iterdir()) == ["making", "state-000007", "step-000007"]
    assert not any((work / "making").iterdir())
    (older / "whole.json").unlink()
    assert find_state(work) is None
