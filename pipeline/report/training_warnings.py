"""What a person should notice in a run's numbers. Each warning says what was seen and what to do.

A warning stops nothing: what cannot be meant (a loss that is not a number, rows without a
supervised token) has ended the run before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from pipeline.report.training import Run, Taken

# Below this a model tends to know its rows by heart: Unsloth's fine-tuning guide, which the
# makers of small LoRA adapters go by. A task with one right answer may well go below.
LOW_LOSS = 0.2
_RISE = 1.02  # of the best evaluation
_WINDOW = 20  # steps that a mean is taken over
_MOST_CLIPPED = 0.5


@dataclass(frozen=True)
class RunWarning:
    """What was seen and what to do about it."""

    what: str
    then: str


def find_warnings(run: Run) -> list[RunWarning]:
    """Return what is worth a look, the most important first."""
    return [*_judge_evaluations(run), *_judge_loss(run), *_judge_settings(run)]


def _judge_evaluations(run: Run) -> Iterator[RunWarning]:
    judged = list(run.evaluations)
    if len(judged) < 2:
        return
    best_step, best = min(judged, key=lambda each: each[1])
    last_step, last = judged[-1]
    if last > best * _RISE:
        yield RunWarning(
            f"Overfitting: the loss on held-out rows was lowest, {best:.4g}, at step {best_step:,}"
            f" and is {last:.4g} at step {last_step:,}, while the model goes on learning its rows.",
            "Take the checkpoint of the lowest one, or train fewer epochs, or on more rows.",
        )


def _judge_loss(run: Run) -> Iterator[RunWarning]:
    if len(run.taken) < 2:
        return
    first, last = _read_ends(run.taken)
    if last < LOW_LOSS:
        judged = f" On held-out rows it is {run.evaluations[-1][1]:.3g}." if run.evaluations else ""
        yield RunWarning(
            f"The training loss is {last:.3g}, below {LOW_LOSS}: the model may know its rows by"
            f" heart instead of what they teach.{judged}",
            "If held-out rows or real answers are worse, train fewer epochs, or with a lower rank"
            " or learning rate.",
        )
    if last > first and len(run.taken) >= 2 * _WINDOW:
        yield RunWarning(
            f"The training loss has risen: {first:.4g} in the first steps, {last:.4g} in the last.",
            "Lower train.learning_rate, or lengthen train.warmup_steps.",
        )


def _judge_settings(run: Run) -> Iterator[RunWarning]:
    warmup, limit = run.options.get("warmup_steps", 0), run.options.get("max_grad_norm", 0)
    if run.steps and warmup >= run.steps:
        yield RunWarning(
            f"The warm-up of {warmup:,} steps is as long as the run of {run.steps:,}: the learning"
            " rate never reaches what the recipe asks for.",
            "Lower train.warmup_steps, or train longer.",
        )
    after = [each for each in run.taken if each.step > warmup]
    clipped = [each for each in after if limit and each.grad_norm > limit]
    if len(after) >= _WINDOW and len(clipped) > _MOST_CLIPPED * len(after):
        yield RunWarning(
            f"The gradient was clipped to a norm of {limit:g} in {len(clipped):,} of the"
            f" {len(after):,} steps after warm-up: the recipe's learning rate is not what the model"
            " has learnt with.",
            "Lower train.learning_rate, or accumulate more rows to a step.",
        )


def _read_ends(taken: Sequence[Taken]) -> tuple[float, float]:
    """Return the mean loss of the first and of the last steps."""
    window = min(_WINDOW, max(1, len(taken) // 2))
    return mean(t.loss for t in taken[:window]), mean(t.loss for t in taken[-window:])
