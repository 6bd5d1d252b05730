"""The conversion's figures -> Markdown: every way, the targets, predictions for the flagship."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.machine import read_cpu_model
from bench.random_checkpoint import FLAGSHIP, FLAGSHIP_PARAMETERS
from bench.tree_usage import Usage
from pipeline.checkpoint.gguf_stream import MAX_WORKERS, SLAB_ELEMENTS, SLAB_ROWS

_TITLES = {
    "streamed-with-adapter": "one pass, with an adapter",
    "four-steps": "(a) text -> merged -> converter -> llama-quantize",
    "streamed": "one pass, without an adapter",
    "two-steps": "(b) converter -> llama-quantize, on the published checkpoint",
    "streamed-one-core": "one pass, without an adapter, on one core",
    "streamed-most-workers": f"one pass, with an adapter, {MAX_WORKERS} threads on these cores",
}
_PAIRS = (("a", "streamed-with-adapter", "four-steps", 4.0), ("b", "streamed", "two-steps", 3.0))
_MOST_WRITTEN = 1.02
# The flagship's widest rows are those of ffn_down.
_SLAB_ELEMENTS = max(SLAB_ELEMENTS, SLAB_ROWS * FLAGSHIP["intermediate_size"])
_MOST_BYTES = 512_000_000


@dataclass(frozen=True, kw_only=True)
class Way:
    """What a way took: medians, but the largest peak."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    written_bytes: int


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; `imports` is a process that only imports what the stage does."""

    file_type: str
    parameters: int
    cores: int
    runs: int
    load: float
    output_bytes: int
    imports: Usage
    ways: Mapping[str, Way]


def format_report(figures: Figures) -> str:
    """Return the whole report."""
    return "\n".join(
        [
            "# Conversion in one pass beside the longer ways",
            "",
            _format_head(figures),
            "",
            "Whole processes, interpreter and imports included, and the gate that reads the file"
            " back; the files of each pair are equal byte for byte. The longer way (a) uses"
            " Tristill's own stages `text` and `merged` for its first two steps; (b) is llama.cpp's"
            " converter and quantizer alone. Peak memory is anonymous"
            " memory in RAM; the page cache is warm.",
            "",
            *_format_ways(figures),
            "",
            "## Targets",
            "",
            *_format_table(("promise", "target", "measured", ""), list(_list_targets(figures))),
            "",
            "## Predictions for the flagship (not measured)",
            "",
            _format_premise(figures),
            "",
            *_format_predictions(figures),
            "",
        ]
    )


def _format_head(figures: Figures) -> str:
    return (
        f"`python -m bench.convert`; {datetime.datetime.now(datetime.UTC).date()}."
        f" {read_cpu_model()}, {figures.cores} cores; load average at the"
        f" start {figures.load:.1f}; {figures.runs} round(s)."
        f" {figures.parameters:,} parameters of the flagship's layer shapes, FP8 ->"
        f" {figures.file_type}, {figures.output_bytes:,} bytes."
    )


def _format_ways(figures: Figures) -> list[str]:
    rows = [
        (
            _TITLES[name],
            f"{way.wall_s:.1f} s",
            f"{way.cpu_s:.1f} s",
            f"{way.peak_bytes / 1e6:,.0f} MB",
            f"{way.written_bytes:,}",
            f"{way.written_bytes / figures.output_bytes:.2f} x",
        )
        for name, way in figures.ways.items()
    ]
    imports = figures.imports
    rows.append(
        (
            "the imports alone",
            f"{imports.wall_s:.1f} s",
            f"{imports.cpu_s:.1f} s",
            f"{imports.peak_bytes / 1e6:,.0f} MB",
            "",
            "",
        )
    )
    headings = ("way", "wall", "CPU", "peak memory", "bytes written", "beside the output")
    return _format_table(headings, rows)


def _list_targets(figures: Figures) -> Iterator[tuple[str, str, str, str]]:
    def row(promise: str, target: str, measured: str, met: bool) -> tuple[str, str, str, str]:
        return promise, target, measured, "met" if met else "missed"

    for title, ours, theirs, times in _PAIRS:
        one, other = figures.ways[ours], figures.ways[theirs]
        cpu, wall = other.cpu_s / one.cpu_s, other.wall_s / one.wall_s
        yield row(f"({title}) CPU", f">= {times:g} x", f"{cpu:.2f} x", cpu >= times)
        yield row(f"({title}) wall", f">= {times:g} x", f"{wall:.2f} x", wall >= times)
    one = figures.ways["streamed-with-adapter"]
    written = one.written_bytes / figures.output_bytes
    yield row("bytes written", f"<= {_MOST_WRITTEN} x", f"{written:.3f} x", written <= 1.02)
    most = figures.ways["streamed-most-workers"]
    beyond = most.peak_bytes - figures.imports.peak_bytes
    yield row(
        f"memory of {MAX_WORKERS} threads, the most, beyond the imports",
        f"< {_MOST_BYTES / 1e6:.0f} MB",
        f"{beyond / 1e6:,.0f} MB",
        beyond < _MOST_BYTES,
    )
    alone, together = figures.ways["streamed-one-core"], figures.ways["streamed"]
    scaling = (alone.wall_s - figures.imports.wall_s) / (together.wall_s - figures.imports.wall_s)
    yield f"{figures.cores} cores beside one, wall", "", f"{scaling:.2f} x", ""


def _format_premise(figures: Figures) -> str:
    rate = figures.parameters / _count_stream_s(figures)
    return (
        f"From {rate / 1e6:.1f} million parameters per CPU-second (the imports apart), perfect"
        f" scaling and a disk that keeps up; memory as measured here with as many threads: the"
        f" widest rows are the flagship's own, a slab is {_SLAB_ELEMENTS:,} elements. At most"
        f" {MAX_WORKERS} cores are used."
    )


def _count_stream_s(figures: Figures) -> float:
    return figures.ways["streamed-with-adapter"].cpu_s - figures.imports.cpu_s


def _format_predictions(figures: Figures) -> list[str]:
    cpu_s = _count_stream_s(figures) * FLAGSHIP_PARAMETERS / figures.parameters
    peaks = {
        figures.cores: figures.ways["streamed-with-adapter"].peak_bytes,
        MAX_WORKERS: figures.ways["streamed-most-workers"].peak_bytes,
    }
    rows = [
        (str(cores), f"{cpu_s / workers / 60:.1f} min", f"{peaks[workers] / 1e6:,.0f} MB")
        for cores in (figures.cores, 16, 64)
        for workers in [min(cores, MAX_WORKERS)]
    ]
    return _format_table(("cores", "wall", "memory"), rows)


def _format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
