"""What a training run keeps while it runs: every checkpoint, and the state that it goes on from.

In the work area lie

    lock          held by the run: one that is still saving when the next begins is waited for
    making/       what is being written; whatever lies there when a run begins is a dead run's
    step-000200/  the weights after that step, as the artifact will hold them
    state-000200/ the same with optimizer, schedule, random numbers and log: the trainer's own files

and `publish` alone gives the last two their names. A state is written after the weights of its
step, so that a run that goes on from it finds every checkpoint up to there; what is newer is
removed and made again. Judged on the held-out rows is every checkpoint, once, before it is written.
"""

import json
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.artifact.publish import publish
from pipeline.artifact.workspace import remove_tree
from pipeline.log import say
from pipeline.sft.checkpoint_list import Evaluation, find_best, name_checkpoint
from pipeline.sft.ranks import is_first, is_true_anywhere, wait_for_all

_WHOLE = "whole.json"
_KEPT_STATES = 2  # were the newest damaged, the one before it would do


@dataclass(frozen=True, kw_only=True)
class State:
    """A state to go on from: where it lies, its step, and whether that was the last one.

    `devices` are what its steps were computed on, in order.
    """

    path: Path
    step: int
    is_last: bool
    devices: tuple[str, ...]


def read_evaluations(log_history: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    """Return the evaluations in the trainer's log: the one before the first step, which has step 0,
    and every checkpoint's."""
    return [
        Evaluation(
            step=entry["step"],
            epoch=entry["epoch"],
            loss=entry["eval_loss"],
            accuracy=entry["eval_mean_token_accuracy"],
        )
        for entry in log_history
        if "eval_loss" in entry
    ]


def find_state(work: Path) -> State | None:
    """Return the newest state that is whole, or None; a damaged one is named and removed."""
    for path in sorted(work.glob("state-*"), key=_read_step, reverse=True):
        try:
            found = json.loads((path / _WHOLE).read_text(encoding="utf-8"))
            if _measure_files(path) == found["files"]:
                return State(
                    path=path,
                    step=_read_step(path),
                    is_last=found["is_last"],
                    devices=tuple(found["devices"]),
                )
        except (OSError, ValueError, KeyError, TypeError):
            pass
        say(f"  {path.name} is damaged and is not used")
        remove_tree(path)
    return None


def sweep_area(work: Path, state: State | None) -> None:
    """Remove what a dead run was writing, and the checkpoints that are newer than the state."""
    remove_tree(work / "making")
    (work / "making").mkdir()
    for path in work.glob("step-*"):
        if state is None or _read_step(path) > state.step:
            remove_tree(path)


def _read_step(path: Path) -> int:
    found = re.fullmatch(r"\w+-(\d+)", path.name)
    assert found, path
    return int(found[1])


def _measure_files(directory: Path) -> dict[str, int]:
    """Return each file's bytes, by path."""
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and path.name != _WHOLE
    }


class Interrupts:
    """Whether this process has been asked to end, by SIGTERM or SIGINT."""

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note a request instead of obeying it. Who cannot wait for the step's end kills."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


@dataclass(frozen=True, kw_only=True)
class Rhythm:
    """When there is a checkpoint, besides each epoch's end and the last step, and when training
    ends early: after `patience` checkpoints without a better one (0: never)."""

    every_steps: int
    patience: int
    best_by: str

    def ends_early(self, evaluations: Sequence[Evaluation]) -> bool:
        """Return whether the last `patience` evaluations have not been better than one before."""
        if not self.patience or not evaluations:
            return False
        best = find_best(evaluations, self.best_by)
        return len(evaluations) - 1 - evaluations.index(best) >= self.patience


class Checkpoints(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Asks the trainer to judge and to save, and publishes what it saves.

    `write_weights` writes the weights of this moment into a directory; every process calls it, the
    first one writes. The trainer's output directory is `work / "making"`.
    """

    def __init__(
        self,
        work: Path,
        *,
        rhythm: Rhythm,
        devices: tuple[str, ...],
        interrupts: Interrupts,
        write_weights: Callable[[Path], None],
    ) -> None:
        self._work = work
        self._rhythm = rhythm
        self._devices = devices
        self._interrupts = interrupts
        self._write_weights = write_weights
        self.is_last = False

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ask for a checkpoint where there is to be one, and for an end where one was asked for."""
        assert state.epoch is not None
        # The trainer adds a fraction that is 1.0 exactly at an epoch's end.
        at_epoch_end = state.epoch == int(state.epoch)
        every = self._rhythm.every_steps
        self.is_last = state.global_step >= state.max_steps
        if self.is_last or at_epoch_end or (every and state.global_step % every == 0):
            control.should_evaluate = control.should_save = True
        if is_true_anywhere(self._interrupts.asked):
            control.should_save = control.should_training_stop = True

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """End early where the checkpoints no longer get better."""
        evaluations = read_evaluations(state.log_history)
        if not self.is_last and self._rhythm.ends_early(evaluations[1:]):
            best = find_best(evaluations[1:], self._rhythm.best_by)
            say(f"  no better {self._rhythm.best_by} since step {best.step}: training ends here")
            self.is_last = control.should_training_stop = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Publish the weights, when they were judged, and then the state."""
        step = state.global_step
        if any(each.step == step for each in read_evaluations(state.log_history[-1:])):
            unfinished = self._work / "making" / name_checkpoint(step)
            if is_first():
                unfinished.mkdir()
            self._write_weights(unfinished)
            if is_first():
                publish(unfinished, self._work / name_checkpoint(step))
        wait_for_all()  # each process has written its part of the state
        if is_first():
            self._publish_state(Path(args.output_dir) / f"checkpoint-{step}", step)
        wait_for_all()

    def _publish_state(self, unfinished: Path, step: int) -> None:
        document = {
            "files": _measure_files(unfinished),
            "is_last": self.is_last,
            "devices": self._devices,
        }
        (unfinished / _WHOLE).write_text(json.dumps(document), encoding="utf-8")
        path = self._work / f"state-{step:06d}"
        publish(unfinished, path)
        older = sorted(self._work.glob("state-*"), key=_read_step)[:-_KEPT_STATES]
        for each in older:
            remove_tree(each)
