"""What a process of several does in a test: a module of its own, quick to import in each."""

import os

from pipeline.errors import StageError


def fail_in_one() -> None:
    """Raise what a user can cause, in the second process alone."""
    if os.environ["RANK"] == "1":
        raise StageError("it failed", on="rank 1", why="it was told to", then="do not")
