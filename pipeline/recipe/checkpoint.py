"""How a recipe names a checkpoint: last, best, step:N or epoch:N. Standard library alone."""

import re

LAST, BEST, STEP, EPOCH = "last", "best", "step", "epoch"
BEST_BY = ("loss", "accuracy")

_NUMBERED = re.compile(r"(step|epoch):([1-9]\d{0,8})")


def parse_checkpoint(text: str) -> tuple[str, int]:
    """Return the kind and its number, 0 where it has none. ValueError for anything else."""
    if text in (LAST, BEST):
        return text, 0
    if (found := _NUMBERED.fullmatch(text)) is None:
        raise ValueError(f"{text!r} is none of last, best, step:N and epoch:N")
    return found[1], int(found[2])
