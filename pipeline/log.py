"""The log that a person reads afterwards: talk on stderr, one timed line per step.

Used on the host and inside images alike. Answers (paths, tables, JSON) never come through here.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_started = False


def start_log() -> None:
    """Let `say` and `step` write to stderr; until then, as in a library, they are silent."""
    global _started
    _started = True


def stop_log() -> None:
    """Keep silent from now on: another process says the same."""
    global _started
    _started = False


def say(text: str) -> None:
    """Write one line of talk."""
    if _started:
        write_line(text)


def write_line(text: str) -> None:
    """Write one line to stderr, and from then on nowhere once nobody reads there: the reader, as
    in `make train 2>&1 | head`, may have seen enough of a build that is to reach its end."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


@contextmanager
def step(name: str) -> Iterator[None]:
    """Announce a step, and say how long it took once it is done."""
    started = time.monotonic()
    say(f"  {name} ...")
    yield
    say(f"  {name}: {time.monotonic() - started:.1f} s")
