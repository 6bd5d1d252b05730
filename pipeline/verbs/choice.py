"""An argument of a command line that may be given several times, or not at all."""

import argparse
from collections.abc import Callable, Iterable


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Return a `type=` that accepts `names` alone.

    argparse's own `choices` checks the default of `nargs="*"` too, and would have to list it.
    """
    allowed = tuple(names)

    def read(word: str) -> str:
        if word not in allowed:
            listed = ", ".join(map(repr, allowed))
            raise argparse.ArgumentTypeError(f"invalid choice: {word!r} (choose from {listed})")
        return word

    return read
