"""The trainer's log as a person reads it: one line every few steps, and a stop when it diverges.

Looks at every step: a loss that is not a number is named with its step, before it can be averaged
away. The lines that are written to metrics.json hold no time, so that its bytes repeat.
"""

import math
import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.errors import StageError
from pipeline.log import say

LINES = 20  # of progress, however long a run is


class Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Collects `lines` for metrics.json; each loss is the mean since the line before."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []
        self._losses: list[float] = []
        self._tokens = 0.0
        self._since = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock when the first step starts, not when the model is loaded."""
        self._since = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Take one step's log; raise StageError when it is not finite or has no gradient."""
        if logs is None or "loss" not in logs:  # the summary after the last step
            return
        _check_alive(state.global_step, logs)
        self._losses.append(logs["loss"])
        every = max(1, state.max_steps // LINES)
        if state.global_step % every == 0 or state.global_step == state.max_steps:
            self._say_line(state, logs)

    def _say_line(self, state: TrainerState, logs: dict[str, float]) -> None:
        loss = sum(self._losses) / len(self._losses)
        now = time.monotonic()
        rate = (logs["num_tokens"] - self._tokens) / max(now - self._since, 1e-9)
        self.lines.append(
            {
                "step": state.global_step,
                "loss": loss,
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs["grad_norm"],
            }
        )
        say(
            f"  step {state.global_step}/{state.max_steps}  loss {loss:.4f}  "
            f"lr {logs['learning_rate']:.2e}  {rate:,.0f} tokens/s"
        )
        self._losses, self._tokens, self._since = [], logs["num_tokens"], now


def _check_alive(at_step: int, logs: dict[str, float]) -> None:
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
            "no gradient reaches the adapter",
            on=f"step {at_step}: loss {logs['loss']:.4f}",
            why="its weights have grown until the model's answer no longer depends on them",
            then="lower train.learning_rate in the recipe",
        )
