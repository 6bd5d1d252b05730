"""A training run as it stands, read from the store: its log and, once it is sealed, its artifact.

The sealed metrics.jsonl holds every number that a repetition gives again; speed and memory are in
the log, which lies beside the artifact and is nobody's input. A run that goes on after an
interruption appends to that log; a step that it takes again counts once.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.artifact.file_lock import is_free
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Artifact, Store
from pipeline.sft.step_line import EvaluationLine, StepLine, parse_line

RECORDS, SUMMARY, SAMPLE = "metrics.jsonl", "metrics.json", "sample.json"
HARDWARE = "hardware.json"

State = Literal["waiting", "preparing", "training", "stopped", "sealed"]

_ATTEMPT = "+ "  # what the log's line with the command begins with


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One step: what repeats, and, where the log says it, what does not."""

    step: int
    epoch: float
    loss: float
    grad_norm: float
    learning_rate: float
    accuracy: float | None = None
    tokens: int | None = None
    tokens_per_s: float | None = None
    peak_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run: `steps` are all that it will take, 0 while that is not known.

    `evaluations` are pairs of step and loss on held-out rows; `summary` is the sealed metrics.json,
    `sample` the sealed rows as the trainer received them, `devices` what computed it, as sealed.
    `step` is the rule's step, with its key.
    """

    recipe: str
    state: State
    step: Step
    artifact: Artifact | None
    steps: int
    taken: Sequence[Taken]
    evaluations: Sequence[tuple[int, float]]
    left_s: float | None
    summary: Mapping[str, Any]
    sample: Sequence[Mapping[str, Any]]
    devices: Sequence[str] = ()

    @property
    def options(self) -> Mapping[str, Any]:
        """What the recipe asked for."""
        options: Mapping[str, Any] = self.step.document["options"]
        return options


@dataclass(frozen=True, kw_only=True)
class Log:
    """What the log says of the steps that count, and of the evaluations."""

    lines: Sequence[StepLine]
    evaluations: Mapping[int, float]

    @property
    def taken(self) -> list[Taken]:
        """The steps, as far as the log knows them."""
        return [
            Taken(
                step=line.step,
                epoch=line.epoch,
                loss=line.loss,
                grad_norm=line.grad_norm,
                learning_rate=line.learning_rate,
                tokens_per_s=line.tokens_per_s,
                peak_mb=line.peak_mb,
            )
            for line in self.lines
        ]


def parse_log(text: str) -> Log:
    """Return the steps in order; of those that several attempts took, the last attempt's."""
    lines: dict[int, StepLine] = {}
    evaluations: dict[int, float] = {}
    is_first = True
    for each in text.splitlines():
        if each.startswith(_ATTEMPT):
            is_first = True
            continue
        found = parse_line(each)
        if isinstance(found, StepLine):
            if is_first:  # it goes on from its checkpoint: what came after that is void
                lines = {step: line for step, line in lines.items() if step < found.step}
                evaluations = {at: loss for at, loss in evaluations.items() if at < found.step}
                is_first = False
            lines[found.step] = found
        elif isinstance(found, EvaluationLine):
            evaluations[found.step] = found.eval_loss
    return Log(lines=[lines[step] for step in sorted(lines)], evaluations=evaluations)


def read_run(recipe: str, step: Step, store: Store) -> Run:
    """Return the run of the step's key as the store has it now."""
    artifact = store.find(step.key, step.rule.name)
    log_path = store.log_path(step.key, step.rule.name)
    log = parse_log(_read_text(log_path))
    taken, evaluations = log.taken, log.evaluations
    if artifact is not None:
        records = _parse_records(_read_text(artifact.path / RECORDS))
        if records:
            taken = _join(records, log.lines)
            evaluations = {
                each["step"]: each["eval_loss"] for each in records if "eval_loss" in each
            }
    sealed = artifact.path if artifact else None
    return Run(
        recipe=recipe,
        state=_find_state(artifact, log, log_path, store.lock_path(step.key)),
        step=step,
        artifact=artifact,
        steps=log.lines[-1].steps if log.lines else (taken[-1].step if taken else 0),
        taken=taken,
        evaluations=sorted(evaluations.items()),
        left_s=log.lines[-1].left_s if log.lines and artifact is None else None,
        summary=_read_json(sealed, SUMMARY, {}),
        sample=_read_json(sealed, SAMPLE, []),
        devices=_read_json(sealed, HARDWARE, {}).get("devices", ()),
    )


def _find_state(artifact: Artifact | None, log: Log, log_path: Path, lock: Path) -> State:
    if artifact is not None:
        return "sealed"
    if not log_path.exists():
        return "waiting"
    if not lock.exists() or is_free(lock):
        return "stopped"
    return "training" if log.lines else "preparing"


def _parse_records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _join(records: Iterable[Mapping[str, Any]], lines: Iterable[StepLine]) -> list[Taken]:
    """Return the records' steps, with what only the log knows where it is still there."""
    by_step = {line.step: line for line in lines}
    taken = []
    for each in records:
        if "loss" not in each:
            continue
        found = Taken(
            step=each["step"],
            epoch=each["epoch"],
            loss=each["loss"],
            grad_norm=each.get("grad_norm", math.nan),
            learning_rate=each["learning_rate"],
            accuracy=each.get("accuracy"),
            tokens=each.get("tokens"),
        )
        if line := by_step.get(found.step):
            found = replace(found, tokens_per_s=line.tokens_per_s, peak_mb=line.peak_mb)
        taken.append(found)
    return taken


def _read_json(sealed: Path | None, name: str, absent: Any) -> Any:
    """Return what a sealed file holds; `absent` when it, or the artifact, is not there."""
    text = _read_text(sealed / name) if sealed else ""
    return json.loads(text) if text else absent


def _read_text(path: Path) -> str:
    """Return the text of a file; "" when it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
