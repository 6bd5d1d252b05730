"""`ENV/bin/python -m bench.dataset --rows DIR`: the stage `dataset` beside TRL's own preparation.

ENV is the environment `train`; DIR holds GSM8K's train.jsonl. Its problems as think traces, once
and many times over, with Mistral's published vocabulary of 131,072 entries: chat template, ids and
completion mask, to files. Whole processes in turns on the same cores; the seconds are those of the
work without imports, and the first rows' ids and masks must be equal. The report goes to stdout in
Markdown and to `bench/results/dataset.md`; with `--quick`, which only tries the script, to stdout
alone.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.dataset_rows import read_traces, write_rows
from bench.dataset_steps import COMPARED_ROWS
from bench.machine import read_cpu_model
from bench.script import run_script, scratch_directory
from bench.tree_usage import measure
from pipeline.artifact.key import REPOSITORY
from pipeline.demo.tokenizer import CONTROL_TOKENS, build_tokenizer, write_tokenizer
from pipeline.engine.environment import read_envs_dir
from pipeline.errors import StageError
from pipeline.log import step
from tests import tekken

_RESULT = REPOSITORY / "bench" / "results" / "dataset.md"
_TARGET = 2.0
_FLAT = 1.5  # peak memory of many copies, as a multiple of that of one
_WAYS = ("ours", "trl")
_TITLES = {"ours": "`dataset`", "trl": "TRL"}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one way took for so many copies: medians, and the highest peak."""

    copies: int
    way: str
    rounds: int
    rows: int
    tokens: int
    seconds: float
    cpu_s: float
    peak_bytes: int

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds


def write_vocabulary(out: Path) -> None:
    """Write the tokenizer with Mistral's own entries and a chat template of Mistral's form."""
    envs_dir = read_envs_dir()
    tekken.prepare(envs_dir)
    published = tekken.read_tekken(envs_dir)
    count = published.control_count
    controls = [CONTROL_TOKENS.get(each, f"<SPECIAL_{each}>") for each in range(count)]
    out.mkdir()
    write_tokenizer(out, build_tokenizer(controls, published.ranks))


def measure_copies(work: Path, copies: int, runs: int, cores: int) -> list[Figures]:
    """Return what both ways took for rows/COPIES, in rounds. Raises StageError if they differ."""
    taken: dict[str, list[tuple[dict[str, float], int]]] = {way: [] for way in _WAYS}
    for number in range(runs):
        for way in _WAYS:
            with step(f"{way}, {copies} times the rows, round {number + 1} of {runs}"):
                taken[way].append(_run(work, way, copies, cores))
    digests = {figures["digest"] for rounds in taken.values() for figures, _ in rounds}
    if len(digests) != 1:
        raise StageError(
            "the two ways do not give the same ids and masks",
            on=f"the first {COMPARED_ROWS} rows",
            why="one of them renders or tokenizes the rows differently",
            then="run the tests of tests/data",
        )
    return [
        Figures(
            copies=copies,
            way=way,
            rounds=runs,
            rows=int(rounds[0][0]["rows"]),
            tokens=int(rounds[0][0]["tokens"]),
            seconds=statistics.median(figures["seconds"] for figures, _ in rounds),
            cpu_s=statistics.median(figures["cpu_s"] for figures, _ in rounds),
            peak_bytes=max(peak for _, peak in rounds),
        )
        for way, rounds in taken.items()
    ]


def _run(work: Path, way: str, copies: int, cores: int) -> tuple[dict[str, float], int]:
    out, figures = work / "out", work / "figures.json"
    out.mkdir()
    argv = [sys.executable, "-m", "bench.dataset_steps", way]
    argv += [str(work / "text"), str(work / f"rows-{copies}"), str(out), str(figures)]
    usage = measure(argv, work / "steps.log", cores)
    shutil.rmtree(out)
    return json.loads(figures.read_text(encoding="utf-8")), usage.peak_bytes


def format_report(head: str, found: Sequence[Figures]) -> str:
    """Return the report in Markdown."""
    cells = [
        "copies",
        "rows",
        "rounds",
        "way",
        "seconds",
        "CPU s",
        "rows/s",
        "tokens/s",
        "peak memory",
    ]
    lines = [
        "# Training data beside TRL",
        "",
        f"{head} Seconds of the work itself, medians; anonymous memory of all processes. TRL reads"
        " JSONL with `datasets` and prepares it in `SFTTrainer` with a process for each core, up to"
        " its labels; the ids and what is supervised are equal in the first"
        f" {COMPARED_ROWS:,} rows, token by token.",
        "",
        f"| {' | '.join(cells)} |",
        f"|{'---|' * len(cells)}",
        *(
            f"| {each.copies} | {each.rows:,} | {each.rounds} | {_TITLES[each.way]} |"
            f" {each.seconds:.1f} | {each.cpu_s:.1f} | {each.rows_per_s:,.0f} |"
            f" {each.tokens / each.seconds:,.0f} | {each.peak_bytes / 2**20:,.0f} MiB |"
            for each in found
        ),
        "",
        *_format_verdicts(found),
    ]
    return "\n".join(lines) + "\n"


def _format_verdicts(found: Sequence[Figures]) -> list[str]:
    ours = [each for each in found if each.way == "ours"]
    lines = []
    for mine, theirs in zip(ours, (each for each in found if each.way == "trl"), strict=True):
        ratio = mine.rows_per_s / theirs.rows_per_s
        met = "met" if ratio >= _TARGET else "MISSED"
        lines.append(
            f"- {mine.copies} copies: {ratio:.1f}x TRL's rows/s; target {_TARGET:g}x, {met};"
            f" {theirs.cpu_s / mine.cpu_s:.1f}x by CPU seconds"
        )
    if len(ours) > 1:
        growth = ours[-1].peak_bytes / ours[0].peak_bytes
        met = "flat" if growth <= _FLAT else "NOT FLAT"
        lines.append(f"- peak memory of {ours[-1].copies} copies: {growth:.2f}x, {met}")
    return lines


def _describe(cores: int) -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("trl", "datasets", "tokenizers"))
    return (
        f"`python -m bench.dataset`; {datetime.datetime.now(datetime.UTC).date()}."
        f" {read_cpu_model()}, {cores} cores; load average at the start"
        f" {os.getloadavg()[0]:.1f}. Python {platform.python_version()}, {versions}."
    )


def run(arguments: argparse.Namespace) -> str:
    """Measure everything; return the report."""
    with scratch_directory(arguments.scratch.resolve() / "tristill-dataset") as work:
        return _measure(arguments, work)


def _measure(arguments: argparse.Namespace, work: Path) -> str:
    cores = len(os.sched_getaffinity(0))
    head = _describe(cores)
    quick: bool = arguments.quick
    traces = read_traces(arguments.rows, 300 if quick else None)
    with step("writing the vocabulary"):
        write_vocabulary(work / "text")
    found: list[Figures] = []
    for copies in (1, 3) if quick else (1, arguments.copies):
        with step(f"writing {copies * len(traces):,} rows"):
            write_rows(traces, copies, work / f"rows-{copies}")
        runs = arguments.runs if copies == 1 and not quick else 1
        found += measure_copies(work, copies, runs, cores)
        shutil.rmtree(work / f"rows-{copies}")
    return format_report(head, found)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dataset", description=__doc__)
    add = parser.add_argument
    add("--rows", type=Path, required=True, metavar="DIR", help="GSM8K's directory")
    add("--scratch", type=Path, default=REPOSITORY / "bench" / "work", metavar="DIR")
    add("--copies", type=int, default=100, metavar="N", help="besides one")
    add("--runs", type=int, default=3, metavar="N", help="rounds for one copy; for more, one")
    add("--quick", action="store_true", help="few rows, one round, no result file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


if __name__ == "__main__":
    sys.exit(main())
