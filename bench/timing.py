"""Programs -> their seconds: whole processes, from the start to the end, in rounds.

Each round runs every program once, so that a machine that is slower for a while is slower for all
of them. A round before the first fills the page cache and compiles bytecode; it does not count.
"""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.progress import Progress
from pipeline.engine import process
from pipeline.errors import StageError


@dataclass(frozen=True, kw_only=True)
class Program:
    """Command lines, run one after another and timed each by itself.

    `expected` must stand in what the last one says. `prepare` goes before every run, not timed.
    """

    title: str
    argvs: tuple[tuple[str | Path, ...], ...]
    cwd: Path
    variables: Mapping[str, str]
    expected: str = ""
    prepare: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Timing:
    """The seconds of one program, one number per round."""

    seconds: tuple[float, ...]

    @property
    def minimum_s(self) -> float:
        return min(self.seconds)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)


def make_variables() -> dict[str, str]:
    """Return this process's variables without those that change how a Python starts.

    With PYTHONDONTWRITEBYTECODE, for one, every start would compile its modules anew.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def measure(programs: Sequence[Program], runs: int, log: Path) -> dict[str, list[Timing]]:
    """Return the timing of each command line of each program, by the program's title.

    Raises StageError when one fails or does not say what is expected.
    """
    rounds: dict[str, list[list[float]]] = {program.title: [] for program in programs}
    progress = Progress("measuring", (runs + 1) * len(programs), unit="runs")
    for number in range(runs + 1):
        for place, program in enumerate(programs, start=1):
            program.prepare()
            seconds = [run(program, argv, log) for argv in program.argvs]
            if number > 0:
                rounds[program.title].append(seconds)
            progress.show(number * len(programs) + place)
    progress.close()
    return {
        title: [Timing(tuple(column)) for column in zip(*found, strict=True)]
        for title, found in rounds.items()
    }


def run(program: Program, argv: Sequence[str | Path], log: Path) -> float:
    """Run one command line of the program; return its seconds."""
    lines: list[str] = []
    started = time.perf_counter()
    code = process.run(
        argv,
        log_path=log,
        environment=program.variables,
        cwd=program.cwd,
        on_line=lines.append,
    )
    seconds = time.perf_counter() - started
    said = "\n".join(lines)
    if code != 0 or (argv == program.argvs[-1] and program.expected not in said):
        raise StageError(
            "a measured program did not do what is measured",
            on=" ".join(map(str, argv)),
            why=f"exit code {code}; it said: {said[-2000:]}",
            then="mend that, or change the versions in bench/peers.txt; then run this again",
        )
    return seconds
