"""How sure a share is, and whether two differ. Standard library only, and pure.

Wilson's score interval (E. B. Wilson, JASA 22, 1927) and the exact form of McNemar's test
(Q. McNemar, Psychometrika 12, 1947): among the problems that one model solves and the other does
not, either would win half by chance.
"""

import math
from collections.abc import Sequence

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point


def make_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, as shares; (0, 1) of nothing."""
    if total == 0:
        return 0.0, 1.0
    share, square = correct / total, _Z_95 * _Z_95
    middle = (share + square / (2 * total)) / (1 + square / total)
    spread = share * (1 - share) / total + square / (4 * total * total)
    half = _Z_95 * math.sqrt(spread) / (1 + square / total)
    low = 0.0 if correct == 0 else middle - half
    high = 1.0 if correct == total else middle + half
    return round(low, 6), round(high, 6)


def compare(first: Sequence[bool], second: Sequence[bool]) -> dict[str, float | int]:
    """Return how many problems only the first or only the second solved, and the p-value of a
    difference as large by chance; both in the same order. ValueError when the lengths differ."""
    pairs = list(zip(first, second, strict=True))
    only_first = sum(a and not b for a, b in pairs)
    only_second = sum(b and not a for a, b in pairs)
    changed, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(changed, k) for k in range(fewer + 1))
    p_value = min(1.0, 2 * tail / 2**changed)
    return {"only_first": only_first, "only_second": only_second, "p_value": round(p_value, 6)}
