"""One optimizer step as a line of the log, and back again.

The log is the one record of what depends on the machine and the hour: tokens per second, memory,
the time that is left. Whoever watches a run reads it from there, on whatever engine it runs, and no
sealed byte knows of it. Standard library alone.
"""

import re
from dataclasses import dataclass

_NUMBER = r"[-+.\de]+|nan|inf|-inf"
_STEP = re.compile(
    r"step (?P<step>\d+)/(?P<steps>\d+)  epoch (?P<epoch>[\d.]+)"
    rf"  loss (?P<loss>{_NUMBER})(?:  eval loss (?P<eval_loss>{_NUMBER}))?"
    rf"  grad norm (?P<grad_norm>{_NUMBER})  lr (?P<learning_rate>{_NUMBER})"
    r"  (?P<tokens_per_s>[\d,]+) tokens/s  peak (?P<peak_mb>[\d,]+) MB  (?P<left>[\d: d]+) left$"
)
_EVALUATION = re.compile(rf"step (?P<step>\d+): eval loss (?P<eval_loss>{_NUMBER})$")


@dataclass(frozen=True, kw_only=True)
class StepLine:
    """What the log says of one step. `eval_loss` is that of the last evaluation so far.

    Numbers have the log's digits: four that count, whole megabytes (10^6 bytes) and whole seconds.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    eval_loss: float | None
    grad_norm: float
    learning_rate: float
    tokens_per_s: float
    peak_mb: float
    left_s: float

    def format(self) -> str:
        """Return the line."""
        judged = "" if self.eval_loss is None else f"  eval loss {self.eval_loss:.4g}"
        return (
            f"step {self.step}/{self.steps}  epoch {self.epoch:.3f}  loss {self.loss:.4g}{judged}"
            f"  grad norm {self.grad_norm:.4g}  lr {self.learning_rate:.4g}"
            f"  {self.tokens_per_s:,.0f} tokens/s  peak {self.peak_mb:,.0f} MB"
            f"  {format_duration(self.left_s)} left"
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationLine:
    """What the log says of one evaluation."""

    step: int
    eval_loss: float

    def format(self) -> str:
        """Return the line."""
        return f"step {self.step}: eval loss {self.eval_loss:.4g}"


def parse_line(text: str) -> StepLine | EvaluationLine | None:
    """Return what a line of the log says of a step; None for any other line."""
    text = text.strip()
    if found := _EVALUATION.match(text):
        return EvaluationLine(step=int(found["step"]), eval_loss=float(found["eval_loss"]))
    if not (found := _STEP.match(text)):
        return None
    return StepLine(
        step=int(found["step"]),
        steps=int(found["steps"]),
        epoch=float(found["epoch"]),
        loss=float(found["loss"]),
        eval_loss=None if found["eval_loss"] is None else float(found["eval_loss"]),
        grad_norm=float(found["grad_norm"]),
        learning_rate=float(found["learning_rate"]),
        tokens_per_s=float(found["tokens_per_s"].replace(",", "")),
        peak_mb=float(found["peak_mb"].replace(",", "")),
        left_s=parse_duration(found["left"]),
    )


def format_duration(seconds: float) -> str:
    """Return whole seconds as 4:05, 1:02:03 or 2d 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def parse_duration(text: str) -> float:
    """Return the seconds that `format_duration` has written."""
    days, _, clock = text.rpartition("d ")
    seconds = 0
    for part in clock.split(":"):
        seconds = seconds * 60 + int(part)
    return float(seconds + 86_400 * int(days or 0))
