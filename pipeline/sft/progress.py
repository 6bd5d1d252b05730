"""The trainer's log as a person reads it: one line per step, as soon as it is taken.

Speed, memory and the time that is left go to the log alone (see step_line.py).
"""

import math
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pipeline.log import say
from pipeline.sft.step_line import EvaluationLine, StepLine


class Progress(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Says a line for each step and each evaluation, on the process that writes alone.

    Comes after `TokenCount` among the trainer's callbacks.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._eval_loss: float | None = None
        self._begun_s = self._since_s = clock()
        self._first_step = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Start the clock when the first step starts, not when the model is loaded."""
        self._begun_s = self._since_s = self._clock()
        self._first_step = state.global_step
        judged = [logs["eval_loss"] for logs in state.log_history if "eval_loss" in logs]
        self._eval_loss = judged[-1] if judged else None

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Say one step's line, or an evaluation's."""
        if logs is None:
            return
        if "eval_loss" in logs:
            self._eval_loss = logs["eval_loss"]
            self._say(state, EvaluationLine(step=state.global_step, eval_loss=logs["eval_loss"]))
        if "loss" not in logs:  # an evaluation, or the summary after the last step
            return
        self._say(state, self._make_line(state, logs, state.log_history[-1]["tokens"]))

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Do not count the evaluation as a part of the next step."""
        self._since_s = self._clock()

    # Nor a checkpoint that is written between two steps.
    on_save = on_evaluate

    def _make_line(self, state: TrainerState, logs: dict[str, float], tokens: float) -> StepLine:
        now_s = self._clock()
        spent_s, self._since_s = now_s - self._since_s, now_s
        taken = state.global_step - self._first_step
        return StepLine(
            step=state.global_step,
            steps=state.max_steps,
            epoch=logs["epoch"],
            loss=logs["loss"],
            eval_loss=self._eval_loss,
            # DeepSpeed clips by itself, and may tell no norm.
            grad_norm=logs.get("grad_norm", math.nan),
            learning_rate=logs["learning_rate"],
            tokens_per_s=tokens / max(spent_s, 1e-9),
            peak_mb=read_peak_bytes() / 1e6,
            left_s=(now_s - self._begun_s) / taken * (state.max_steps - state.global_step),
        )

    def _say(self, state: TrainerState, line: StepLine | EvaluationLine) -> None:
        if state.is_world_process_zero:
            say(f"  {line.format()}")


def read_peak_bytes() -> int:
    """Return the most memory so far: the GPU's that tensors had, or the process's without one."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
