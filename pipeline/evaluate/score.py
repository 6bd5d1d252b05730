"""Graded answers of every model -> scores.json. Standard library only, and pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pipeline.evaluate.interval import compare, make_interval
from pipeline.evaluate.reasoning import Reasoning, count_repetition, measure_reasoning

# Only a long answer has the time to fall into a loop.
LONG_TOKENS = 300
# Of its runs of four words, more than half have occurred before: nobody writes so.
_LOOP = 0.5
_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Graded:
    """One answer: what the model wrote, whether it is right, and how it ended.

    `domain` is the row's, "" without one; `exam` is the user's file that asked it, "" for a
    held-out row; `tokens` counts what was written; `finished` is false when the model was stopped
    at the limit.
    """

    text: str
    correct: bool
    domain: str
    exam: str = ""
    tokens: int
    finished: bool


def make_scores(answers: Mapping[str, Sequence[Graded]]) -> dict[str, Any]:
    """Return each model's score; all have answered the same problems, in the same order.

    Where a user's own file asked some, `exams` holds the same of each, and of the held-out rows.
    """
    exams = list(dict.fromkeys(each.exam for given in answers.values() for each in given))
    scores = _compare_all(answers)
    if exams not in ([], [""]):
        for exam in exams:
            parts = {
                name: [each for each in given if each.exam == exam]
                for name, given in answers.items()
            }
            for name, score in _compare_all(parts).items():
                scores[name].setdefault("exams", {})[exam or "held out"] = score
    return scores


def _compare_all(answers: Mapping[str, Sequence[Graded]]) -> dict[str, Any]:
    """Return each model's score; each but the first is compared with the first."""
    scores: dict[str, Any] = {}
    first, first_correct = "", list[bool]()
    for name, given in answers.items():
        correct = [each.correct for each in given]
        scores[name] = make_score(given)
        if scores.keys() == {name}:
            first, first_correct = name, correct
        else:
            scores[name]["compared"] = {"with": first, **compare(first_correct, correct)}
    return scores


def make_score(answers: Sequence[Graded]) -> dict[str, Any]:
    """Return the counts, the 95 % interval of the accuracy (shares), and the measures of form."""
    correct = sum(each.correct for each in answers)
    measured = [measure_reasoning(each.text) for each in answers]
    score: dict[str, Any] = {
        "correct": correct,
        "total": len(answers),
        "interval": list(make_interval(correct, len(answers))),
        "unfinished": sum(not each.finished for each in answers),
        "reasoning": _sum_reasoning(measured),
        "long_answers": _sum_repetition(answers),
    }
    if any(each.domain for each in answers):
        score["domains"] = _sum_domains(answers, measured)
    return score


def _sum_reasoning(measured: Sequence[Reasoning]) -> dict[str, Any]:
    steps, depths = [each.steps for each in measured], [each.depth for each in measured]
    counts = [0] * _BINS
    for depth in depths:
        counts[min(int(depth * _BINS), _BINS - 1)] += 1
    return {
        "well_formed": sum(each.well_formed for each in measured),
        "verifies": sum(each.verifies for each in measured),
        "agrees": sum(each.agrees for each in measured),
        "steps": {"mean": _mean(steps), "least": min(steps), "most": max(steps)},
        "depth": {
            "mean": _mean(depths),
            "least": min(depths),
            "most": max(depths),
            "tenths": counts,
        },
    }


def _sum_repetition(answers: Sequence[Graded]) -> dict[str, Any]:
    shares = [count_repetition(each.text) for each in answers if each.tokens >= LONG_TOKENS]
    return {
        "count": len(shares),
        "repetition": _mean(shares),
        "loops": sum(each > _LOOP for each in shares),
    }


def _sum_domains(answers: Sequence[Graded], measured: Sequence[Reasoning]) -> dict[str, Any]:
    found: defaultdict[str, list[tuple[Graded, Reasoning]]] = defaultdict(list)
    for answer, reasoning in zip(answers, measured, strict=True):
        found[answer.domain].append((answer, reasoning))
    return {
        domain: {
            "correct": sum(answer.correct for answer, _ in pairs),
            "total": len(pairs),
            "depth": _mean([reasoning.depth for _, reasoning in pairs]),
            "steps": _mean([reasoning.steps for _, reasoning in pairs]),
        }
        for domain, pairs in sorted(found.items())
    }


def _mean(values: Sequence[float]) -> float:
    return round(fmean(values), 4) if values else 0.0
