"""`python -m bench.engine`: the build engine beside DVC, Snakemake, cp and sha256sum.

All in one run, as whole processes, in turns. The table goes to stdout in Markdown and to
`bench/results/engine.md`; with `--quick`, which only tries the script, to stdout alone. Nothing is
left in the scratch directory, however the run ends.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import machine, peers, stores
from bench.engine_table import Case, Figures, format_report
from bench.script import run_script, scratch_directory
from bench.timing import Program, Timing, make_variables, measure
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.workspace import remove_tree
from pipeline.engine.environment import read_envs_dir
from pipeline.errors import CapacityError
from pipeline.log import step

_RESULT = REPOSITORY / "bench" / "results" / "engine.md"
_GB = 10**9
_SPARE_BYTES = _GB
_SMALL_BYTES = 16
_FILES = 8
_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured: the graphs, the bytes of the throughput, the rounds."""

    cases: tuple[Case, ...]
    throughput_bytes: int
    runs: int
    throughput_runs: int


def measure_nothing_to_do(plan: Plan, work: Path, programs: Path) -> dict[str, Timing]:
    """Return the timing of a build without work, by program and graph."""
    found = [_make_demo_program(work, programs), _make_floor(programs)]
    for number, case in enumerate(plan.cases):
        with step(f"building {case.title} with each program"):
            found += _make_builds(case, work / f"case-{number}", programs)
    timings = measure(found, plan.runs, work / "builds.log")
    return {title: timing for title, (timing,) in timings.items()}


def _make_builds(case: Case, work: Path, programs: Path) -> list[Program]:
    work.mkdir()
    size = {"count": case.count, "size_bytes": case.size_bytes}
    stores.seal_graph(work / "store", **size)
    peers.make_dvc_project(work / "dvc", programs, **size)
    peers.make_snakemake_project(work / "snakemake", programs, **size)
    variables = peers.make_variables(work)
    return [
        Program(
            title=case.title_of("Tristill"),
            argvs=(_make_argv(programs, "bench.graph", work / "store", str(case.count)),),
            cwd=REPOSITORY,
            variables=make_variables(),
            expected="nothing to build",
        ),
        Program(
            title=case.title_of("DVC"),
            argvs=((programs / "dvc", "repro"),),
            cwd=work / "dvc",
            variables=variables,
            expected="Data and pipelines are up to date.",
        ),
        Program(
            title=case.title_of("Snakemake"),
            argvs=((programs / "snakemake", "--cores", "2", "all"),),
            cwd=work / "snakemake",
            variables=variables,
            expected="Nothing to be done",
        ),
    ]


def _make_demo_program(work: Path, programs: Path) -> Program:
    store = work / "demo" / "store"
    stores.seal_demo(store)
    options = ("--store", store, "--recipe", stores.DEMO)
    return Program(
        title=Figures.COMMAND_LINE,
        argvs=(_make_argv(programs, "pipeline", "build", *options),),
        cwd=REPOSITORY,
        variables=make_variables(),
        expected="nothing to build",
    )


def _make_floor(programs: Path) -> Program:
    return Program(
        title=Figures.FLOOR,
        argvs=((programs / "python", "-c", "pass"),),
        cwd=REPOSITORY,
        variables=make_variables(),
    )


def _make_argv(programs: Path, module: str, *words: str | Path) -> tuple[str | Path, ...]:
    """Return a command line of ours, with the very interpreter that runs the peers."""
    return (programs / "python", "-m", module, *words)


def measure_throughput(plan: Plan, work: Path, programs: Path) -> dict[str, Timing]:
    """Return the timing of sealing, copying, verifying and hashing the same bytes."""
    source, copy, store = work / "source", work / "copy", work / "sealed"
    with step(f"writing {plan.throughput_bytes:,} random bytes"):
        _write_random(source, plan.throughput_bytes)
        sealed = stores.seal_linked(source, store)
    found = _make_copies(source, copy, work / "store", programs)
    found += _make_readers(store, sealed, work, programs)
    timings = measure(found, plan.throughput_runs, work / "throughput.log")
    cp, sync = timings[Figures.CP_SYNC]
    before_seal, seal = timings[Figures.CP_SEAL]
    return {
        Figures.CP: cp,
        Figures.CP_SYNC: _add(cp, sync),
        Figures.SEAL: seal,
        Figures.CP_SEAL: _add(before_seal, seal),
        Figures.VERIFY: timings[Figures.VERIFY][0],
        Figures.SHA256SUM: timings[Figures.SHA256SUM][0],
    }


def _make_copies(source: Path, copy: Path, store: Path, programs: Path) -> list[Program]:
    def prepare() -> None:
        remove_tree(copy)
        remove_tree(store)
        # Else one program would write what another left to be written.
        os.sync()

    cp: tuple[str | Path, ...] = ("cp", "-r", source, copy)
    names = tuple(path.name for path in sorted(source.iterdir()))
    ways: dict[str, tuple[str | Path, ...]] = {
        Figures.CP_SYNC: ("sync", *(copy / name for name in names)),
        Figures.CP_SEAL: _make_argv(programs, "bench.stores", store, copy),
    }
    return [
        Program(
            title=title,
            argvs=(cp, last),
            cwd=REPOSITORY,
            variables=make_variables(),
            prepare=prepare,
        )
        for title, last in ways.items()
    ]


def _make_readers(store: Path, sealed: Path, work: Path, programs: Path) -> list[Program]:
    names = work / "names"
    names.write_text("".join(f"{path}\n" for path in sorted(sealed.glob("data-*"))))
    cores = str(os.cpu_count())
    ways: dict[str, tuple[str | Path, ...]] = {
        Figures.VERIFY: _make_argv(programs, "pipeline", "verify", "--store", store),
        Figures.SHA256SUM: ("xargs", "-a", names, "-P", cores, "-n", "1", "sha256sum"),
    }
    return [
        Program(title=title, argvs=(argv,), cwd=REPOSITORY, variables=make_variables())
        for title, argv in ways.items()
    ]


def _write_random(directory: Path, size_bytes: int) -> None:
    directory.mkdir()
    for number in range(_FILES):
        left_bytes = size_bytes // _FILES
        with (directory / f"data-{number}.bin").open("wb") as file:
            while left_bytes:
                left_bytes -= file.write(os.urandom(min(_CHUNK_BYTES, left_bytes)))


def _add(first: Timing, second: Timing) -> Timing:
    return Timing(tuple(a + b for a, b in zip(first.seconds, second.seconds, strict=True)))


def require_room(plan: Plan, scratch: Path) -> None:
    """Raise CapacityError when the scratch directory or the memory is too small.

    Two copies of the bytes lie on the disk, and in memory: the page cache must stay warm.
    """
    needed = 2 * plan.throughput_bytes + _SPARE_BYTES
    free = {
        str(scratch): shutil.disk_usage(scratch).free,
        "memory": machine.read_memory_bytes("MemAvailable"),
    }
    for on, free_bytes in free.items():
        if free_bytes < needed:
            raise CapacityError(
                "not enough room for this measurement",
                on=on,
                why=f"2 x {plan.throughput_bytes:,} + {_SPARE_BYTES:,} bytes needed,"
                f" {free_bytes:,} free",
                then="measure less with --gb, or name another directory with --scratch DIR",
            )


def require_sparse_files(scratch: Path, size_bytes: int) -> None:
    """Raise CapacityError when a hole takes room in the scratch directory."""
    path = scratch / "sparse"
    path.touch()
    try:
        os.truncate(path, size_bytes)
        why = "" if path.stat().st_blocks < size_bytes // 1024 else "a hole takes room there"
    except OSError as error:
        why = error.strerror or str(error)
    path.unlink()
    if why:
        raise CapacityError(
            "the sparse file cannot be made",
            on=str(scratch),
            why=why,
            then="measure with less, --sparse-gb N, or name another directory with --scratch DIR",
        )


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    add = parser.add_argument
    add("--peers", type=Path, default=read_envs_dir(), metavar="DIR", help="where they lie")
    add("--scratch", type=Path, default=REPOSITORY / "bench" / "work", metavar="DIR")
    add("--sparse-gb", type=float, default=50, metavar="N", help="one artifact's sparse bytes")
    add("--gb", type=float, default=4, metavar="N", help="bytes to seal and to verify")
    add("--runs", type=int, default=15, metavar="N", help="rounds of builds; a third for --gb")
    add("--quick", action="store_true", help="small sizes, three rounds, no result file")
    return parser.parse_args(argv)


def _make_plan(arguments: argparse.Namespace) -> Plan:
    quick: bool = arguments.quick
    small, many = (5, 20) if quick else (5, 500)
    sparse_gb = 1 if quick else arguments.sparse_gb
    runs = 3 if quick else arguments.runs
    return Plan(
        cases=(
            Case(title=f"{small} artifacts", count=small, size_bytes=_SMALL_BYTES),
            Case(title=f"{many} artifacts", count=many, size_bytes=_SMALL_BYTES),
            Case(
                title=f"{small} artifacts, one of {sparse_gb:g} GB",
                count=small,
                size_bytes=int(sparse_gb * _GB),
            ),
        ),
        throughput_bytes=int((0.2 if quick else arguments.gb) * _GB),
        runs=runs,
        throughput_runs=max(runs // 3, 3),
    )


def run(arguments: argparse.Namespace) -> str:
    """Measure everything; return the report."""
    plan = _make_plan(arguments)
    scratch = arguments.scratch.resolve() / "tristill-bench"
    with scratch_directory(scratch) as work:
        require_room(plan, work)
        require_sparse_files(work, max(case.size_bytes for case in plan.cases))
        programs = peers.install(arguments.peers.resolve())
        trial = " --quick`, which only tries the script" if arguments.quick else "`"
        head = f"`python -m bench.engine{trial}; {machine.describe(work)}"
        timings = measure_nothing_to_do(plan, work, programs) | measure_throughput(
            plan, work, programs
        )
        figures = Figures(
            cases=plan.cases,
            throughput_bytes=plan.throughput_bytes,
            runs=plan.runs,
            throughput_runs=plan.throughput_runs,
            timings=timings,
        )
        return format_report(figures, head)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


if __name__ == "__main__":
    sys.exit(main())
