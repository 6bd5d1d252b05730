"""How far a long piece of work is: a line that moves on a terminal, a line per tenth elsewhere."""

import sys
import time

from pipeline.log import say

_REFRESH_S = 0.1


class Progress:
    """Counts up to `total` units; `show` may be called for every one."""

    def __init__(self, title: str, total: int, unit: str = "") -> None:
        self._title = title
        self._total = total
        self._unit = f" {unit}" if unit else ""
        self._tenth = 0
        self._shown_at: float | None = None

    def show(self, done: int) -> None:
        """Say how many of the units are done, if that is news."""
        if sys.stderr.isatty():
            self._refresh(done)
        elif done * 10 // max(self._total, 1) > self._tenth:
            self._tenth = done * 10 // self._total
            say(self._format(done))

    def close(self) -> None:
        """Leave the moving line behind."""
        if self._shown_at is not None:
            sys.stderr.write("\n")
            self._shown_at = None

    def _refresh(self, done: int) -> None:
        now = time.monotonic()
        if self._shown_at is None or now - self._shown_at > _REFRESH_S or done >= self._total:
            sys.stderr.write(f"\r{self._format(done)}")
            sys.stderr.flush()
            self._shown_at = now

    def _format(self, done: int) -> str:
        return f"{self._title} {done:,}/{self._total:,}{self._unit}"
