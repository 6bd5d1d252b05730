"""What an answer's form says of its reasoning, without a judge. Standard library only, and pure.

- well formed: one `<think>` block, at the beginning, ended, with words inside and an answer after.
- steps: what begins like a step ("Step 2:", "3.", "-"), where there are two of them; else lines;
  else, in a single line, sentences.
- verifies: it checks itself: "check", "verify", "substitute back", "✓" and their like.
- agrees: the answer's last number, or the answer where it has none, stands in the last third of the
  steps (at least the last two): a conclusion that the reasoning never came to is not its own.
- depth, from 0 to 1: 0.4 min(steps / 10, 1) + 0.3 min(words / 150, 1) + 0.2 verifies + 0.1 agrees.
  It measures extent, not truth; accuracy stands beside it.
- repetition: the share of runs of four words that have occurred before in the text, seq-rep-4
  (Welleck et al., "Neural Text Generation with Unlikelihood Training", 2019).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.evaluate.grade import THINK_END, THINK_START, find_numbers, read_answer

_STEPS_FULL = 10
_WORDS_FULL = 150
_RUN_WORDS = 4

_MARKED = re.compile(
    r"\s*(?:#+\s*)?(?:\*\*)?(?:step\s+\d+|\d{1,3}[.)](?!\d)|[-*•]\s)", re.IGNORECASE
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_CHECKS = re.compile(
    r"\b(?:verif(?:y|ies|ied|ication)|(?:double-?|re-?)?check(?:s|ed|ing)?|substitut\w+ back"
    r"|plug\w* (?:it |this |them )?back|sanity|confirm(?:s|ed|ing)?)\b|✓|✔|✅",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, kw_only=True)
class Reasoning:
    """What one answer's form says; see the module for each."""

    well_formed: bool
    steps: int
    words: int
    verifies: bool
    agrees: bool
    depth: float


def measure_reasoning(text: str) -> Reasoning:
    """Return the measures of an assistant's text; without a think block all are nought."""
    thinking, answer = _split(text), read_answer(text)
    steps = list_steps(thinking)
    words = len(_WORD.findall(thinking))
    verifies = bool(_CHECKS.search(thinking))
    agrees = answer is not None and _agrees(steps, answer)
    begins_and_ends_once = text.count(THINK_START) == text.count(THINK_END) == 1
    return Reasoning(
        well_formed=begins_and_ends_once
        and text.lstrip().startswith(THINK_START)
        and words > 0
        and answer is not None,
        steps=len(steps),
        words=words,
        verifies=verifies,
        agrees=agrees,
        depth=round(
            0.4 * min(len(steps) / _STEPS_FULL, 1)
            + 0.3 * min(words / _WORDS_FULL, 1)
            + 0.2 * verifies
            + 0.1 * agrees,
            4,
        ),
    )


def list_steps(thinking: str) -> list[str]:
    """Return the steps of the text between the marks of a think block, each with what follows it
    up to the next."""
    lines = [line for line in thinking.split("\n") if line.strip()]
    starts = [number for number, line in enumerate(lines) if _MARKED.match(line)]
    if len(starts) > 1:
        ends = [*starts[1:], len(lines)]
        return ["\n".join(lines[a:b]) for a, b in zip(starts, ends, strict=True)]
    if len(lines) > 1:
        return lines
    return [each for each in _SENTENCE.split(thinking.strip()) if each]


def count_repetition(text: str) -> float:
    """Return seq-rep-4 of the text's words, from 0 (nothing repeats) towards 1 (a loop)."""
    words = _WORD.findall(text)
    runs = [
        tuple(words[start : start + _RUN_WORDS]) for start in range(len(words) - _RUN_WORDS + 1)
    ]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _split(text: str) -> str:
    """Return what stands in the first think block, as far as it goes."""
    if THINK_START not in text:
        return text.partition(THINK_END)[0] if THINK_END in text else ""
    return text.partition(THINK_START)[2].partition(THINK_END)[0]


def _agrees(steps: Sequence[str], answer: str) -> bool:
    if not steps:
        return False
    end = "\n".join(steps[-max(2, len(steps) // 3) :])
    if numbers := find_numbers(answer):
        return numbers[-1] in find_numbers(end)
    wanted = answer.strip().rstrip(".").casefold()
    return bool(re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", end.casefold()))
