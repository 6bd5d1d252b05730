"""How far a long piece of work is: a line that moves on a terminal, a line per tenth elsewhere."""

import sys

from pipeline.log import say


class Progress:
    """Counts up to `total`; `show` may be called for every unit."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._tenth = 0
        self._shown = False

    def show(self, done: int) -> None:
        """Say how many of the units are done, if that is news."""
        text = f"{self._title} {done}/{self._total}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text}")
            sys.stderr.flush()
            self._shown = True
        elif done * 10 // self._total > self._tenth:
            self._tenth = done * 10 // self._total
            say(text)

    def close(self) -> None:
        """Leave the moving line behind."""
        if self._shown:
            sys.stderr.write("\n")
            self._shown = False
