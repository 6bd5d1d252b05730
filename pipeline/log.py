"""The log that a person reads afterwards: talk on stderr, one timed line per step.

Used on the host and inside images alike. Answers (paths, tables, JSON) never come through here.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_logger = logging.getLogger("tristill")


def start_log() -> None:
    """Send `say` and `step` to stderr as plain lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    _logger.handlers = [handler]
    _logger.setLevel(logging.INFO)
    _logger.propagate = False


def say(text: str) -> None:
    """Write one line of talk."""
    _logger.info(text)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Announce a step, and say how long it took once it is done."""
    started = time.monotonic()
    say(f"  {name} ...")
    yield
    say(f"  {name}: {time.monotonic() - started:.1f} s")
