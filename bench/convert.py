"""`ENV/bin/python -m bench.convert`: one pass to a GGUF beside the longer ways.

ENV is the environment `convert`. All in one run, in turns, whole processes: (a) with an adapter,
against text-only copy -> merged copy -> llama.cpp's converter -> llama-quantize; (b) without one,
against llama.cpp's two steps on the published checkpoint itself. The file of each pass must equal
that of the longer way, byte for byte. The report goes to stdout in Markdown and to
`bench/results/convert.md`; with `--quick`, which only tries the script, to stdout alone.
"""

import argparse
import filecmp
import os
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.convert_table import Figures, Way, format_report
from bench.random_checkpoint import FLAGSHIP, write_adapter, write_base
from bench.script import run_script, scratch_directory
from bench.tree_usage import Usage, measure
from pipeline.artifact.key import REPOSITORY
from pipeline.checkpoint.gguf_stream import MAX_WORKERS
from pipeline.errors import StageError
from pipeline.log import step

_RESULT = REPOSITORY / "bench" / "results" / "convert.md"
_QUICK = FLAGSHIP | {"hidden_size": 256, "intermediate_size": 1024, "head_dim": 32}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where the checkpoint lies, and how it is converted."""

    work: Path
    file_type: str
    cores: int

    def run(self, name: str, *words: str | Path, cores: int = 0) -> Usage:
        """Run one step as a process."""
        argv = [sys.executable, "-m", "bench.conversion_steps", name, *map(str, words)]
        return measure(argv, self.work / "steps.log", cores or self.cores)

    def stream(self, adapter: bool, out: Path, cores: int = 0, workers: int = 0) -> Usage:
        """Run the one pass."""
        out.mkdir()
        second = self.work / "adapter" if adapter else "-"
        options = (out, self.file_type, str(workers or cores or self.cores))
        return self.run("stream", self.work / "base", second, *options, cores=cores)

    def chain(self, out: Path) -> list[Usage]:
        """Run the four steps with an adapter."""
        for name in ("text", "model"):
            (out / name).mkdir(parents=True)
        return [
            self.run("text", self.work / "base", out / "text"),
            self.run("merged", out / "text", self.work / "adapter", out / "model"),
            *self._convert(out / "model", out),
        ]

    def two_steps(self, out: Path) -> list[Usage]:
        """Run llama.cpp's two steps without an adapter."""
        out.mkdir()
        (out / "model").symlink_to(self.work / "base")
        return self._convert(out / "model", out)

    def _convert(self, checkpoint: Path, out: Path) -> list[Usage]:
        tool = Path(sys.prefix) / "llama" / "bin" / "llama-quantize"
        files = (str(out / "BF16.gguf"), str(out / "model.gguf"))
        argv = [str(tool), *files, self.file_type, str(self.cores)]
        return [
            self.run("convert", checkpoint, out / "BF16.gguf"),
            measure(argv, self.work / "steps.log", self.cores),
        ]


def _measure_way(bench: Bench, go: Callable[[Path], list[Usage]], name: str) -> tuple[Usage, int]:
    """Return what one way took and the bytes that it wrote; its GGUF stays as `name`.gguf."""
    out = bench.work / "out"
    with step(name):
        usage = sum(go(out), start=Usage(wall_s=0, cpu_s=0, peak_bytes=0))
    written = [path for path in out.rglob("*") if path.is_file() and not path.is_symlink()]
    beside = out / "model"
    written = [path for path in written if not (beside.is_symlink() and beside in path.parents)]
    size = sum(path.stat().st_size for path in written)
    (out / "model.gguf").rename(bench.work / f"{name}.gguf")
    shutil.rmtree(out)
    return usage, size


def _measure_round(bench: Bench) -> dict[str, tuple[Usage, int]]:
    ways: dict[str, Callable[[Path], list[Usage]]] = {
        "streamed-with-adapter": lambda out: [bench.stream(True, out)],
        "four-steps": bench.chain,
        "streamed": lambda out: [bench.stream(False, out)],
        "two-steps": bench.two_steps,
        "streamed-one-core": lambda out: [bench.stream(False, out, cores=1)],
        "streamed-most-workers": lambda out: [bench.stream(True, out, workers=MAX_WORKERS)],
    }
    found = {name: _measure_way(bench, go, name) for name, go in ways.items()}
    for ours, theirs in [
        ("streamed-with-adapter", "four-steps"),
        ("streamed", "two-steps"),
        ("streamed-one-core", "two-steps"),
        ("streamed-most-workers", "four-steps"),
    ]:
        if not filecmp.cmp(bench.work / f"{ours}.gguf", bench.work / f"{theirs}.gguf", False):
            raise StageError(
                "the ways do not give the same file",
                on=f"{ours} and {theirs}",
                why="one of the measured programs is at fault",
                then="run the tests of tests/checkpoint/test_gguf_identity.py",
            )
    return found


def _make_way(rounds: Sequence[dict[str, tuple[Usage, int]]], name: str) -> Way:
    usages = [each[name][0] for each in rounds]
    return Way(
        wall_s=statistics.median(each.wall_s for each in usages),
        cpu_s=statistics.median(each.cpu_s for each in usages),
        peak_bytes=max(each.peak_bytes for each in usages),
        written_bytes=rounds[0][name][1],
    )


def run(arguments: argparse.Namespace) -> str:
    """Measure everything; return the report."""
    with scratch_directory(arguments.scratch.resolve() / "tristill-convert") as work:
        return _run(arguments, work)


def _run(arguments: argparse.Namespace, work: Path) -> str:
    layers, sizes = (2, _QUICK) if arguments.quick else (arguments.layers, FLAGSHIP)
    with step("writing random weights"):
        parameters = write_base(work / "base", layers, sizes)
        write_adapter(work / "adapter", layers, sizes)
    cores = len(os.sched_getaffinity(0))
    bench = Bench(work=work, file_type=arguments.type, cores=cores)
    load = os.getloadavg()[0]
    imports = bench.run("imports")
    rounds = []
    for _ in range(1 if arguments.quick else arguments.runs):
        rounds.append(_measure_round(bench))
    figures = Figures(
        file_type=arguments.type,
        parameters=parameters,
        cores=cores,
        runs=len(rounds),
        load=load,
        output_bytes=(work / "streamed.gguf").stat().st_size,
        imports=imports,
        ways={name: _make_way(rounds, name) for name in rounds[0]},
    )
    return format_report(figures)


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.convert", description=__doc__)
    add = parser.add_argument
    add("--scratch", type=Path, default=REPOSITORY / "bench" / "work", metavar="DIR")
    add("--layers", type=int, default=1, metavar="N", help="of 556 million parameters each")
    add("--type", default="Q4_K_M")
    add("--runs", type=int, default=1, metavar="N", help="rounds; medians are reported")
    add("--quick", action="store_true", help="a small model, one round, no result file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


if __name__ == "__main__":
    sys.exit(main())
