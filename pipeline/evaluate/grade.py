"""An assistant's text -> its answer -> right or wrong. Standard library only, and pure.

How an answer is compared is the recipe's to say, one of `FORMS`:

- `exact`: the answer is the solution, once outer space, a full stop at the end and thousands commas
  are gone.
- `number`: the last number of the answer is the last number of the solution, as numbers: "so it is
  $1,250.00." is right for "#### 1250".
- `choice`: the last capital letter that stands alone, such as B in "the answer is (B)".
- `contains`: the solution stands somewhere in the answer, in any case, as whole words.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

THINK_START = "<think>"
THINK_END = "</think>"

# The control tokens that Mistral's own reasoning models write instead.
CONTROL_MARKS = {"[THINK]": THINK_START, "[/THINK]": THINK_END}

# 1,234,567 and not 12,34: a comma is a separator only before groups of three digits.
_THOUSANDS = re.compile(r"(?<![\d,])(\d{1,3}(?:,\d{3})+)(?![\d,])")
_NUMBER = re.compile(r"(?<![\w.])[-−]?\d+(?:\.\d+)?|(?<![\w.])[-−]?\.\d+")
_CHOICE = re.compile(r"(?<![\w'])([A-Z])(?![\w'])")


def read_answer(text: str) -> str | None:
    """Return what follows the last end of a think block, stripped; without a block, the whole text.

    None when nothing follows, or when a block was begun and not ended: the model ran out of tokens.
    """
    if THINK_START in text and THINK_END not in text:
        return None
    return text.rpartition(THINK_END)[2].strip() or None


def write_plain_marks(text: str) -> str:
    """Return the text with every think block between the plain marks."""
    for control, plain in CONTROL_MARKS.items():
        text = text.replace(control, plain)
    return text


def is_correct(text: str, solution: str, form: str = "exact") -> bool:
    """Whether the text's answer is the solution, in one of `FORMS`; KeyError for another form."""
    answer = read_answer(text)
    return answer is not None and FORMS[form](answer, read_answer(solution) or "")


def find_numbers(text: str) -> list[Decimal]:
    """Return the text's numbers in their order; 1,250 is one number and 12,50 are two."""
    found = []
    for match in _NUMBER.findall(_join_thousands(text)):
        try:
            found.append(Decimal(match.replace("−", "-")))
        except InvalidOperation:  # digits of another script
            continue
    return found


def _is_exact(answer: str, solution: str) -> bool:
    return bool(_normalise(solution)) and _normalise(answer) == _normalise(solution)


def _is_number(answer: str, solution: str) -> bool:
    found, wanted = find_numbers(answer), find_numbers(solution)
    return bool(found and wanted) and found[-1] == wanted[-1]


def _is_choice(answer: str, solution: str) -> bool:
    found, wanted = _CHOICE.findall(answer), _CHOICE.findall(solution)
    return bool(found and wanted) and found[-1] == wanted[-1]


def _does_contain(answer: str, solution: str) -> bool:
    wanted = _normalise(solution)
    pattern = rf"(?<!\w){re.escape(wanted)}(?!\w)"
    return bool(wanted) and bool(re.search(pattern, _join_thousands(answer), re.IGNORECASE))


def _normalise(answer: str) -> str:
    """Return the answer without outer space, thousands commas and a trailing full stop."""
    return _join_thousands(answer.strip().removesuffix(".").rstrip())


def _join_thousands(text: str) -> str:
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


FORMS: dict[str, Callable[[str, str], bool]] = {
    "exact": _is_exact,
    "number": _is_number,
    "choice": _is_choice,
    "contains": _does_contain,
}
