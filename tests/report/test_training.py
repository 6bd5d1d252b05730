"""A run's log and artifact -> what a person sees: each step once, warnings, a page that is safe."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifact.key import make_key
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.report.training import Run, parse_log, read_run
from pipeline.report.training_page import list_numbers, make_page, write_report
from pipeline.report.training_warnings import find_warnings
from pipeline.sft.step_line import (
    EvaluationLine,
    StepLine,
    format_duration,
    parse_duration,
    parse_line,
)
from tests.artifact.sealing import make_manifest, seal_small
from tests.page.parsed_page import ParsedPage

EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=y> & \u2028 \" ' \0"
OPTIONS: dict[str, Any] = {"max_grad_norm": 1.0, "warmup_steps": 2, "method": EVIL}


def make_line(step: int, loss: float = 1.0, **changes: Any) -> StepLine:
    values: dict[str, Any] = {
        "steps": 100,
        "epoch": step / 50,
        "eval_loss": None,
        "grad_norm": 0.5,
        "learning_rate": 1e-4,
        "tokens_per_s": 1234.0,
        "peak_mb": 5678.0,
        "left_s": 60.0,
    }
    return StepLine(step=step, loss=loss, **(values | changes))


def make_log(*lines: StepLine | EvaluationLine, command: str = "+ python job") -> str:
    return "\n".join([command, "  loading ...", *(f"  {each.format()}" for each in lines)]) + "\n"


def make_step(artifact: Artifact | None = None) -> Step:
    manifest = make_manifest("training", options=OPTIONS)
    return Step(
        rule=Rule(name="training", image="train", stage="sft.training", options=OPTIONS),
        key=artifact.key if artifact else make_key(manifest.document),
        document=artifact.manifest.document if artifact else manifest.document,
        environment={},
        source={},
        artifact=artifact,
    )


def seal_run(store: Store, records: list[dict[str, Any]], **summary: Any) -> Step:
    sample = [{"row": 0, "tokens": 9, "supervised": 4, "pieces": [[f"{EVIL}\ud800", True, False]]}]
    files = {
        "metrics.jsonl": "".join(json.dumps(each) + "\n" for each in records).encode(),
        "metrics.json": json.dumps(summary).encode(),
        "sample.json": json.dumps(sample).encode(),
        "hardware.json": json.dumps({"devices": ["CPU", "GPU X"]}).encode(),
    }
    return make_step(seal_small(store, "training", options=OPTIONS, files=files))


def make_record(step: int, loss: float = 1.0, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": step / 50,
        "loss": loss,
        "learning_rate": 1e-4,
        "grad_norm": 0.5,
        "tokens": 100,
        **more,
    }


_LOSSES = st.floats(1e-9, 1e9) | st.sampled_from([math.inf, 0.0])


@given(
    st.integers(1, 10**6), _LOSSES, st.none() | _LOSSES, st.floats(0, 1e6), st.integers(0, 10**7)
)
def test_a_line_says_what_was_meant(
    step: int, loss: float, eval_loss: float | None, rate: float, left_s: int
) -> None:
    line = make_line(step, loss, eval_loss=eval_loss, tokens_per_s=rate, left_s=float(left_s))
    found = parse_line(f"  {line.format()}")
    assert isinstance(found, StepLine)
    assert found.format() == line.format()
    assert (found.step, found.left_s) == (step, left_s)
    assert found.loss == pytest.approx(loss, rel=1e-3)
    assert found.eval_loss == (None if eval_loss is None else pytest.approx(eval_loss, rel=1e-3))
    assert found.tokens_per_s == pytest.approx(rate, abs=0.51)


def test_a_line_as_it_is_read() -> None:
    assert make_line(7, 0.012345, eval_loss=1.5, left_s=3725).format() == (
        "step 7/100  epoch 0.140  loss 0.01235  eval loss 1.5  grad norm 0.5  lr 0.0001"
        "  1,234 tokens/s  peak 5,678 MB  1:02:05 left"
    )
    assert parse_line(EvaluationLine(step=7, eval_loss=0.25).format()) == EvaluationLine(
        step=7, eval_loss=0.25
    )
    for other in ("  train on 32 rows ...", "step 3", "adapter | nothing", ""):
        assert parse_line(other) is None


@given(st.integers(0, 10**8))
def test_durations(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_what_a_resumed_run_takes_again_counts_once() -> None:
    first = make_log(
        make_line(1),
        make_line(2),
        EvaluationLine(step=2, eval_loss=9.0),
        make_line(3),
        make_line(4),
    )
    second = make_log(make_line(3, 0.5), EvaluationLine(step=3, eval_loss=2.0), make_line(4, 0.25))
    log = parse_log(first + second)
    assert [(line.step, line.loss) for line in log.lines] == [(1, 1), (2, 1), (3, 0.5), (4, 0.25)]
    assert log.evaluations == {2: 9.0, 3: 2.0}
    again = parse_log(first + make_log(make_line(1, 0.125)))
    assert [(line.step, line.loss) for line in again.lines] == [(1, 0.125)]
    assert again.evaluations == {}


def test_a_run_from_nothing_to_sealed(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    step = make_step()
    assert read_run("mine", step, store).state == "waiting"
    log = store.log_path(step.key, "training")
    log.parent.mkdir()
    log.write_text("+ python job\n  loading ...\n")
    with store.lock(step.key, "training"):
        assert read_run("mine", step, store).state == "preparing"
        log.write_text(make_log(make_line(1), EvaluationLine(step=1, eval_loss=2.5)))
        run = read_run("mine", step, store)
        assert (run.state, run.steps, run.left_s) == ("training", 100, 60.0)
        assert ("time left", "1:00") in list_numbers(run)
    assert read_run("mine", step, store).state == "stopped"
    store.lock_path(step.key).unlink()  # as gc does
    assert read_run("mine", step, store).state == "stopped"
    sealed = seal_run(store, [make_record(1, 1.23456789), make_record(2, eval_loss=2.5)])
    assert sealed.key == step.key
    run = read_run("mine", sealed, store)
    assert run.state == "sealed"
    # The exact number is the artifact's, the speed the log's, which knows of step 1 alone.
    assert [each.loss for each in run.taken] == [1.23456789, 1.0]
    assert [each.tokens_per_s for each in run.taken] == [1234.0, None]
    assert run.evaluations == [(2, 2.5)]
    assert ("tokens trained on", "200") in list_numbers(run)


def make_run(losses: list[float], evaluations: dict[int, float], tmp_path: Path) -> Run:
    store = open_store(tmp_path / "store")
    lines = [make_line(n, loss, steps=len(losses)) for n, loss in enumerate(losses, start=1)]
    step = make_step()
    log = store.log_path(step.key, "training")
    log.parent.mkdir(exist_ok=True)
    judged = [EvaluationLine(step=at, eval_loss=loss) for at, loss in evaluations.items()]
    log.write_text(make_log(*lines, *judged))
    return read_run("mine", step, store)


@pytest.mark.parametrize(
    ("losses", "evaluations", "said"),
    [
        ([2.0] * 60, {20: 1.0, 40: 1.1}, ["Overfitting"]),
        ([2.0] * 60, {20: 1.1, 40: 1.0}, []),
        ([2.0] * 30 + [0.19] * 30, {}, ["below 0.2"]),
        ([2.0] * 30 + [3.0] * 30, {}, ["has risen"]),
        ([2.0, 1.0], {}, ["warm-up"]),
        ([], {}, []),
    ],
)
def test_warnings(
    tmp_path: Path, losses: list[float], evaluations: dict[int, float], said: list[str]
) -> None:
    found = find_warnings(make_run(losses, evaluations, tmp_path))
    assert len(found) == len(said)
    assert all(word in each.what for word, each in zip(said, found, strict=True))


def test_steps_that_are_mostly_clipped_are_a_warning(tmp_path: Path) -> None:
    store, step = open_store(tmp_path / "store"), make_step()
    store.log_path(step.key, "training").parent.mkdir()
    norms = [9.0] * 2 + [1.5] * 20 + [0.5] * 18
    lines = [make_line(n, grad_norm=norm) for n, norm in enumerate(norms, start=1)]
    store.log_path(step.key, "training").write_text(make_log(*lines))
    (found,) = find_warnings(read_run("mine", step, store))
    assert "clipped to a norm of 1 in 20 of the 38 steps" in found.what


def test_the_page_of_a_sealed_run_is_whole_and_safe(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    records = [make_record(n, 4.0 / n, accuracy=0.5) for n in range(1, 50)]
    step = seal_run(store, records, loss_before=4.0, loss_after=0.1)
    log = store.log_path(step.key, "training")
    log.write_text(make_log(*(make_line(n, 4.0 / n) for n in range(1, 50))))
    write_report(EVIL, step, store)
    page = ParsedPage(store.report_path(step.key, "training").read_text(encoding="utf-8"))
    page.require_nothing_foreign()
    assert page.tags.count("script") == 0
    assert "connect-src" not in page.policy
    assert page.tags.count("svg") == 6
    for word in (
        *("Loss", "Learning rate", "Gradient norm", "Token accuracy", "Throughput", "Peak memory"),
        *("5,678 MB", "4 before, 0.1 after", "4,900", step.key, "9 tokens, 4 supervised"),
        *("below 0.2", "It is done and sealed.", "CPU, then GPU X"),
    ):
        assert word in page.text, word
    assert page.text.count("<script>alert(1)") == 4  # title, heading, row, setting: as text


def test_a_live_page_asks_its_own_server_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    page = ParsedPage(make_page(read_run("mine", make_step(), store), live=True))
    page.require_nothing_foreign()
    assert page.tags.count("script") == 1
    assert "connect-src 'self'" in page.policy
    assert "nothing yet" in page.text
