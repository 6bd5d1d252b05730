"""What stops a run that cannot end well, at the step where it shows, with the reason.

A loss or a gradient that is not a number, a gradient that is zero, and a loss on held-out rows that
the first steps have not moved.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import StageError

# After as many steps the loss must have moved by more than rounding, as a share of itself: warming
# up, a step of 1e-6 in every weight of an adapter moves it by a hundred times as much.
STILL_STEPS = 50
_ROUNDING = 1e-6


class Guards(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Raises StageError at the first step that shows that a run is broken.

    `read_held_out` gives the loss on held-out rows; what it was before the first step is the first
    evaluation in the trainer's log.
    """

    def __init__(self, *, read_held_out: Callable[[], float]) -> None:
        self._read_held_out = read_held_out

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Look at one step's log; other lines (evaluations, the summary) have no grad_norm."""
        if logs is not None and "loss" in logs and "grad_norm" in logs:
            check_step(state.global_step, logs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Look once whether anything is learnt."""
        if state.global_step == STILL_STEPS:
            before = next(each for each in state.log_history if "eval_loss" in each)
            _check_moved(before["eval_loss"], self._read_held_out())


def check_step(at_step: int, logs: Mapping[str, float]) -> None:
    """Raise StageError when the step's loss or gradient is not finite, or the gradient is zero."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(logs[name]):
            raise StageError(
                "training diverges",
                on=f"step {at_step}: {name} is {logs[name]}",
                why="the learning rate is too high, or the base model's weights are not sane",
                then="lower train.learning_rate in the recipe",
            )
    if logs["grad_norm"] == 0:
        raise StageError(
            "no gradient reaches the weights",
            on=f"step {at_step}: loss {logs['loss']:.4f}",
            why="they have grown until the model's answer no longer depends on them",
            then="lower train.learning_rate in the recipe",
        )


def check_finite(loss_after: float) -> None:
    """Raise StageError when the trained model no longer gives a number."""
    if not math.isfinite(loss_after):
        raise StageError(
            "the trained weights are broken",
            on=f"loss on held-out rows: {loss_after}",
            why="the last steps made them overflow",
            then="lower train.learning_rate in the recipe",
        )


def _check_moved(before: float, now: float) -> None:
    if abs(now - before) <= _ROUNDING * abs(before):
        raise StageError(
            "the loss does not move",
            on=f"step {STILL_STEPS}: {now:.6f} on held-out rows, {before:.6f} before step 1",
            why="the learning rate is too low, or warm-up so long that it still is",
            then="raise train.learning_rate or lower train.warmup_steps in the recipe",
        )
