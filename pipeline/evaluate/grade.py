"""An assistant's text -> its answer -> right or wrong. Standard library only, and pure."""

import re

THINK_END = "</think>"

# 1,234,567 and not 12,34: a comma is a separator only before groups of three digits.
_THOUSANDS = re.compile(r"(?<![\d,])(\d{1,3}(?:,\d{3})+)(?![\d,])")


def read_answer(text: str) -> str | None:
    """Return what follows the last end of a think block, stripped; without a block, the whole text.

    None when nothing follows, or when a block was begun and not ended: the model ran out of tokens.
    """
    if "<think>" in text and THINK_END not in text:
        return None
    return text.rpartition(THINK_END)[2].strip() or None


def is_correct(text: str, solution: str) -> bool:
    """Whether the text's answer is the solution, exactly, once both are normalised."""
    answer = read_answer(text)
    return answer is not None and _normalise(answer) == _normalise(solution)


def _normalise(answer: str) -> str:
    """Return the answer without outer space, thousands commas and a trailing full stop."""
    stripped = answer.strip().removesuffix(".").rstrip()
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), stripped)
