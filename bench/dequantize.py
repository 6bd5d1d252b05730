"""`ENV/bin/python -m bench.dequantize`: FP8 to BF16 beside torch's own conversion.

ENV is the environment `convert`. Slabs of weights of the flagship's shapes, with scales of each
form; kernel, tables and torch in turns, and the bits of the first rows must be equal. GB of FP8 per
CPU-second, one thread and several. The table goes to stdout in Markdown and to
`bench/results/dequantize.md`; with `--quick`, which only tries the script, to stdout alone.
"""

import argparse
import datetime
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bench.machine import read_cpu_model
from bench.script import run_script
from pipeline.artifact.key import REPOSITORY
from pipeline.checkpoint.dequantize import Scale, look_up, make_scale
from pipeline.checkpoint.fp8_kernel import Fp8Kernel
from pipeline.checkpoint.gguf_stream import SLAB_ELEMENTS, SLAB_ROWS
from pipeline.checkpoint.kernel_file import KERNEL, find_library_dir
from pipeline.errors import HostError, StageError
from pipeline.log import step

_RESULT = REPOSITORY / "bench" / "results" / "dequantize.md"
_TARGET = 1.0
_BLOCK = (128, 128)
_FORMS = ("per tensor", "per channel", "blocks of 128 x 128")
_DTYPES = {"E4M3": torch.float8_e4m3fn, "E5M2": torch.float8_e5m2}

# The flagship's gate_proj, or its first rows.
_ROWS, _COLUMNS = 32768, 5120
_CHECKED_ROWS = 512
# As the stream cuts them.
_SLAB_ROWS = max(SLAB_ELEMENTS // _COLUMNS // SLAB_ROWS, 1) * SLAB_ROWS


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one line of the table measures."""

    dtype: str
    form: str
    threads: int


@dataclass(frozen=True, kw_only=True)
class Speed:
    """GB of FP8 per CPU-second and per second of wall time."""

    cpu: float
    wall: float


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """What was measured in one case."""

    kernel: Speed
    tables: Speed
    torch: Speed


def measure(kernel: Fp8Kernel, cases: Sequence[Case], rows: int, runs: int) -> dict[Case, Speeds]:
    """Return the median speeds by case."""
    found: dict[Case, list[Speeds]] = {case: [] for case in cases}
    for number in range(runs):
        with step(f"round {number + 1} of {runs}"):
            for case in cases:
                found[case].append(_run_all(kernel, case, rows))
    return {
        case: Speeds(
            kernel=_take_median([each.kernel for each in speeds]),
            tables=_take_median([each.tables for each in speeds]),
            torch=_take_median([each.torch for each in speeds]),
        )
        for case, speeds in found.items()
    }


def _run_all(kernel: Fp8Kernel, case: Case, rows: int) -> Speeds:
    weight_OI, scale = _make_weight(case, rows)
    wide = _widen(scale, rows)

    def ask_kernel(start: int, stop: int) -> torch.Tensor:
        return kernel.dequantize(weight_OI[start:stop], scale.values_PQ, scale.block, start)

    def ask_tables(start: int, stop: int) -> torch.Tensor:
        return look_up(weight_OI[start:stop], scale, start)

    def convert(start: int, stop: int) -> torch.Tensor:
        part = wide if len(wide) == 1 else wide[start:stop]
        return (weight_OI[start:stop].float() * part).bfloat16()

    for ask in (ask_kernel, ask_tables):
        if not torch.equal(ask(0, _CHECKED_ROWS), convert(0, _CHECKED_ROWS)):
            raise StageError(
                "dequantized weights are not those of torch",
                on=f"{case.dtype}, {case.form}, {ask.__name__}",
                why="codes are converted wrongly, or rows take the wrong scales",
                then="run python -m tests tests/checkpoint/test_dequantize.py",
            )
    return Speeds(
        kernel=_run(ask_kernel, rows, case.threads),
        tables=_run(ask_tables, rows, case.threads),
        torch=_run(convert, rows, case.threads),
    )


def _run(convert: Callable[[int, int], torch.Tensor], rows: int, threads: int) -> Speed:
    """Convert all slabs, none of which is kept, by threads that already have their memory."""
    starts = range(0, rows, _SLAB_ROWS)

    def drop(start: int) -> None:
        convert(start, min(start + _SLAB_ROWS, rows))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(drop, starts[: 4 * threads]))
        cpu_s, wall_s = -time.process_time(), -time.perf_counter()
        list(pool.map(drop, starts))
        cpu_s, wall_s = cpu_s + time.process_time(), wall_s + time.perf_counter()
    size_gb = rows * _COLUMNS / 1e9
    return Speed(cpu=size_gb / cpu_s, wall=size_gb / wall_s)


def _make_weight(case: Case, rows: int) -> tuple[torch.Tensor, Scale]:
    """Return weights as a model has them, normal, and scales that take them to size."""
    generator = torch.Generator().manual_seed(1)
    weight_OI = torch.randn(rows, _COLUMNS, generator=generator) * 80
    grid = {
        "per tensor": (1, 1),
        "per channel": (rows, 1),
        "blocks of 128 x 128": (-(-rows // _BLOCK[0]), -(-_COLUMNS // _BLOCK[1])),
    }[case.form]
    scale = torch.rand(grid, generator=generator) * 1e-3 + 1e-4
    block = _BLOCK if case.form == _FORMS[2] else None
    made = make_scale(scale, (rows, _COLUMNS), block, name=case.form)
    return weight_OI.clamp(-448, 448).to(_DTYPES[case.dtype]), made


def _widen(scale: Scale, rows: int) -> torch.Tensor:
    """Return what torch multiplies by; it is made before the clock starts."""
    if scale.values_PQ.numel() == 1:
        return scale.values_PQ
    return scale.of_rows(0, rows, _COLUMNS)


def _take_median(speeds: Sequence[Speed]) -> Speed:
    return Speed(
        cpu=statistics.median(each.cpu for each in speeds),
        wall=statistics.median(each.wall for each in speeds),
    )


def format_report(head: str, found: dict[Case, Speeds]) -> str:
    """Return the table in Markdown."""
    cells = ["FP8", "scales", "threads", "kernel", "tables", "torch", "kernel / torch", "wall"]
    lines = [
        "# FP8 to BF16 beside torch",
        "",
        f"{head} GB of FP8 per CPU-second, medians; bits equal to torch's. The last column is"
        " the kernel's GB per second of wall time.",
        "",
        f"| {' | '.join(cells)} |",
        f"|{'---|' * len(cells)}",
        *(
            f"| {case.dtype} | {case.form} | {case.threads} | {each.kernel.cpu:.2f} |"
            f" {each.tables.cpu:.2f} | {each.torch.cpu:.2f} |"
            f" {each.kernel.cpu / each.torch.cpu:.1f}x | {each.kernel.wall:.2f} |"
            for case, each in found.items()
        ),
        "",
        f"Target: {_TARGET:g} GB per CPU-second; the kernel's least of each form:",
        "",
        *(_format_verdict(form, found) for form in _FORMS),
    ]
    return "\n".join(lines) + "\n"


def _format_verdict(form: str, found: dict[Case, Speeds]) -> str:
    least = min(each.kernel.cpu for case, each in found.items() if case.form == form)
    return f"- {form}: {least:.2f}, {'met' if least >= _TARGET else 'MISSED'}"


def _load_kernel(path: Path) -> Fp8Kernel:
    kernel = Fp8Kernel(path) if path.is_file() else None
    if kernel is None or not kernel.works:
        raise HostError(
            "there is no kernel to measure",
            on=str(path),
            why="this Python is not that of the environment `convert`, or the CPU has no AVX2",
            then="cc -O3 -mavx2 -ffp-contract=off -shared -fPIC pipeline/checkpoint/kquants.c"
            f" -o {KERNEL}; then run this again with --kernel {KERNEL}",
        )
    return kernel


def _describe() -> str:
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}. {read_cpu_model()},"
        f" {os.cpu_count()} cores; load average at the start {os.getloadavg()[0]:.1f}. Python"
        f" {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}."
    )


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dequantize", description=__doc__)
    add = parser.add_argument
    add("--kernel", type=Path, default=find_library_dir() / KERNEL, metavar="FILE")
    add("--threads", type=int, default=os.cpu_count(), metavar="N", help="besides one thread")
    add("--runs", type=int, default=7, metavar="N", help="rounds")
    add("--quick", action="store_true", help="few rows, two rounds, no result file")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace) -> str:
    """Measure everything; return the report."""
    torch.set_num_threads(1)
    quick: bool = arguments.quick
    head = f"`python -m bench.dequantize`; {_describe()}"
    cases = [
        Case(dtype=dtype, form=form, threads=threads)
        for dtype in _DTYPES
        for form in _FORMS
        for threads in sorted({1, arguments.threads})
    ]
    rows = _ROWS // 16 if quick else _ROWS // 4
    kernel = _load_kernel(arguments.kernel)
    return format_report(head, measure(kernel, cases, rows, 2 if quick else arguments.runs))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


if __name__ == "__main__":
    sys.exit(main())
