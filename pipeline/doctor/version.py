"""Version texts -> numbers that compare."""

import re

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")


def parse_version(text: str) -> tuple[int, ...]:
    """Return the first run of numbers in the text: (2, 26, 1) of "v2.26.1-4"; () of none."""
    found = _NUMBERS.search(text)
    return tuple(map(int, found[0].split("."))) if found else ()
