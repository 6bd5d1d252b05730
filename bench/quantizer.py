"""`ENV/bin/python -m bench.quantizer`: the lane kernel beside ggml's own quantizers.

ENV is the environment `convert`. Both make the same rows in the same run, in turns, and every byte
must be equal. Elements per CPU-second, one thread and several, with and without an importance of
each column. The table goes to stdout in Markdown and to `bench/results/quantizer.md`; with
`--quick`, which only tries the script, to stdout alone.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.machine import read_cpu_model
from bench.script import run_script
from pipeline.artifact.key import REPOSITORY
from pipeline.checkpoint.kernel_file import KERNEL
from pipeline.checkpoint.quantizer import Quantizer
from pipeline.errors import HostError, StageError
from pipeline.log import step

_RESULT = REPOSITORY / "bench" / "results" / "quantizer.md"
# tensor type -> whether it can be weighted
_TYPES = {"Q4_K": True, "Q5_K": True, "Q6_K": True, "Q8_0": False, "IQ4_XS": True}
_SLAB_ROWS = 64
_COLUMNS = 5120
_LANES = (8, 16)
_TARGET = 3.0


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one line of the table measures."""

    tensor_type: str
    weighted: bool
    threads: int


def measure(
    quantizers: Sequence[Quantizer], cases: Sequence[Case], rows: np.ndarray, runs: int
) -> dict[Case, list[float]]:
    """Return, by case, each quantizer's median of million elements per CPU-second."""
    found: dict[Case, list[list[float]]] = {case: [[] for _ in quantizers] for case in cases}
    for number in range(runs):
        with step(f"round {number + 1} of {runs}"):
            for case in cases:
                made = [_run(each, case, rows) for each in quantizers]
                for place, (speed, blocks) in enumerate(made):
                    _require_equal(case, quantizers[place], blocks, made[0][1])
                    found[case][place].append(speed)
    return {case: [statistics.median(each) for each in speeds] for case, speeds in found.items()}


def _run(quantizer: Quantizer, case: Case, rows: np.ndarray) -> tuple[float, np.ndarray]:
    weights = np.abs(rows[0]) if case.weighted else None
    slabs = [rows[start : start + _SLAB_ROWS] for start in range(0, len(rows), _SLAB_ROWS)]

    def make(slab: np.ndarray) -> np.ndarray:
        return quantizer.quantize(case.tensor_type, slab, weights)

    with ThreadPoolExecutor(case.threads) as pool:
        started = time.process_time()
        made = list(pool.map(make, slabs))
        seconds = time.process_time() - started
    return rows.size / seconds / 1e6, np.concatenate(made)


def _require_equal(case: Case, quantizer: Quantizer, found: np.ndarray, due: np.ndarray) -> None:
    if not np.array_equal(found, due):
        raise StageError(
            "the kernel's bytes are not those of ggml",
            on=f"{case.tensor_type}, {quantizer.lanes} lanes",
            why="the kernel is wrong, or was compiled with other flags",
            then="run python -m tests tests/checkpoint/test_quantizer.py",
        )


def format_report(
    head: str, quantizers: Sequence[Quantizer], found: dict[Case, list[float]]
) -> str:
    """Return the table in Markdown."""
    titles = [f"{each.lanes} lanes" if each.lanes else "ggml" for each in quantizers]
    ratios = [f"{title} / ggml" for title in titles[1:]]
    head_cells = ["type", "importance", "threads", *titles, *ratios]
    lines = [
        "# The lane kernel beside ggml's quantizers",
        "",
        f"{head} Million elements per CPU-second, medians; every byte equal to ggml's.",
        "",
        f"| {' | '.join(head_cells)} |",
        f"|{'---|' * len(head_cells)}",
        *(_format_line(case, speeds) for case, speeds in found.items()),
        "",
        _format_verdict(found),
    ]
    return "\n".join(lines) + "\n"


def _format_line(case: Case, speeds: Sequence[float]) -> str:
    cells = [case.tensor_type, "yes" if case.weighted else "no", str(case.threads)]
    cells += [f"{speed:.1f}" for speed in speeds]
    cells += [f"{speed / speeds[0]:.1f}x" for speed in speeds[1:]]
    return f"| {' | '.join(cells)} |"


def _format_verdict(found: dict[Case, list[float]]) -> str:
    least = min(speed / speeds[0] for speeds in found.values() for speed in speeds[1:])
    word = "met" if least >= _TARGET else "MISSED"
    return (
        f"Target: {_TARGET:g}x ggml's elements per CPU-second; the least is {least:.1f}x: {word}."
    )


def make_quantizers(kernel: Path) -> list[Quantizer]:
    """Return ggml alone, then the kernel in each width that this CPU can run.

    Raises HostError when it can run none.
    """
    if not kernel.is_file():
        raise HostError(
            "there is no kernel to measure",
            on=str(kernel),
            why="this Python is not that of the environment `convert`, or it has no kernel",
            then="cc -O3 -mavx2 -ffp-contract=off -shared -fPIC pipeline/checkpoint/kquants.c"
            f" -o {KERNEL}; then run this again with --kernel {KERNEL}",
        )
    made = [Quantizer(kernel, most_lanes=lanes) for lanes in _LANES]
    usable = [each for lanes, each in zip(_LANES, made, strict=True) if each.lanes == lanes]
    if not usable:
        raise HostError(
            "the kernel cannot be used",
            on=str(kernel),
            why="the CPU has no AVX2, or the kernel's bytes are not those of ggml",
            then="measure on another machine, or compile it with -O3 -mavx2 -ffp-contract=off",
        )
    return [Quantizer(None), *usable]


def _describe() -> str:
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}. {read_cpu_model()},"
        f" {os.cpu_count()} cores; load average at the start {os.getloadavg()[0]:.1f}. Python"
        f" {platform.python_version()}, NumPy {np.__version__}."
    )


def _make_rows(elements: int) -> np.ndarray:
    """Return weights as a model has them: normal, in the numbers of BF16."""
    count = elements // _COLUMNS // _SLAB_ROWS * _SLAB_ROWS
    rows = np.random.default_rng(1).standard_normal((count, _COLUMNS), np.float32)
    return ((rows * np.float32(0.02)).view(np.uint32) & 0xFFFF0000).view(np.float32)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.quantizer", description=__doc__)
    add = parser.add_argument
    add("--kernel", type=Path, default=Path(sys.prefix) / "llama" / "lib" / KERNEL, metavar="FILE")
    add("--threads", type=int, default=os.cpu_count(), metavar="N", help="besides one thread")
    add("--elements", type=int, default=2_621_440, metavar="N", help="per measurement")
    add("--runs", type=int, default=9, metavar="N", help="rounds")
    add("--quick", action="store_true", help="few elements, two rounds, no result file")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Measure everything; return the report."""
    quick: bool = arguments.quick
    head = f"`python -m bench.quantizer`; {_describe()}"
    quantizers = make_quantizers(arguments.kernel)
    threads = sorted({1, arguments.threads})
    cases = [
        Case(tensor_type=tensor_type, weighted=weighted, threads=count)
        for weighted in (False, True)
        for tensor_type, can_be in _TYPES.items()
        for count in threads
        if can_be or not weighted
    ]
    rows = _make_rows(655_360 if quick else arguments.elements)
    found = measure(quantizers, cases, rows, 2 if quick else arguments.runs)
    return format_report(head, quantizers, found)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


if __name__ == "__main__":
    sys.exit(main())
