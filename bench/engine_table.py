"""The engine's figures -> Markdown: every timing, the ratios, and each target met or missed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.timing import Timing

_TOOLS = ("Tristill", "DVC", "Snakemake")
_LIMIT_S = 0.150
_TIMES_UNDER_PEER = 10
_TIMES_SMALL = 1.1
_TIMES_SHA256SUM = 1.2


@dataclass(frozen=True, kw_only=True)
class Case:
    """A graph: a root, with that many bytes, and `count` - 1 artifacts made from it."""

    title: str
    count: int
    size_bytes: int

    def title_of(self, tool: str) -> str:
        return f"{tool}, {self.title}"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What was measured; `cases` are the small graph, the wide one and the one with a large root.

    `timings` are by `Case.title_of` or one of the titles below.
    """

    COMMAND_LINE: ClassVar[str] = "`python -m pipeline build`, the demonstration"
    FLOOR: ClassVar[str] = "`python -c pass`"
    CP: ClassVar[str] = "`cp -r`"
    CP_SYNC: ClassVar[str] = "`cp -r`, then `sync` of the files"
    SEAL: ClassVar[str] = "seal (of files just copied, not yet on the disk)"
    CP_SEAL: ClassVar[str] = "`cp -r`, then seal"
    VERIFY: ClassVar[str] = "`python -m pipeline verify`"
    SHA256SUM: ClassVar[str] = "`xargs -P $(nproc) -n 1 sha256sum`"

    cases: tuple[Case, ...]
    throughput_bytes: int
    runs: int
    throughput_runs: int
    timings: Mapping[str, Timing]

    def ratio(self, title: str, to: str) -> float:
        """Return how many times the other's median the median of the first is."""
        return self.timings[title].median_s / self.timings[to].median_s


def format_report(figures: Figures, head: str) -> str:
    """Return the whole report; `head` names the command and the machine."""
    return "\n".join(
        [
            "# The build engine beside its peers",
            "",
            head,
            "",
            "Whole processes in turns; one round before does not count; ratios are of medians.",
            "",
            "## Targets",
            "",
            *_format_targets(figures),
            "",
            f"## A build with nothing to do, {figures.runs} rounds",
            "",
            "One root and the rest made from it, the same graph for all. Tristill compares keys"
            " and sizes, DVC what its cache of hashes says of size and mtime, Snakemake mtimes and"
            " what it noted of each rule. Tristill's rows are a fresh process that makes the rules"
            " and builds; the command line, with the demonstration's recipe, has a row of its own.",
            "",
            *_format_builds(figures),
            "",
            f"## {figures.throughput_bytes / 1e9:g} GB of random bytes in 8 files,"
            f" {figures.throughput_runs} rounds",
            "",
            "The page cache is warm: everything is read in the round before. Before each copy all"
            " that waits to be written is on the disk. Sealing hashes the files, writes the"
            " manifest and puts all of it on the disk.",
            "",
            *_format_throughput(figures),
            "",
        ]
    )


def _format_builds(figures: Figures) -> list[str]:
    rows = []
    for case in figures.cases:
        ours = case.title_of(_TOOLS[0])
        for tool in _TOOLS:
            title = case.title_of(tool)
            rows.append((title, *_format_ms(figures, title), f"{figures.ratio(title, ours):.1f}"))
    for title in (Figures.COMMAND_LINE, Figures.FLOOR):
        rows.append((title, *_format_ms(figures, title), ""))
    return _format_table(("program, graph", "minimum", "median", "times Tristill"), rows)


def _format_ms(figures: Figures, title: str) -> tuple[str, str]:
    timing = figures.timings[title]
    return f"{1000 * timing.minimum_s:.0f} ms", f"{1000 * timing.median_s:.0f} ms"


def _format_throughput(figures: Figures) -> list[str]:
    ways = (
        (Figures.CP_SYNC, None),
        (Figures.SEAL, None),
        (Figures.CP_SEAL, Figures.CP_SYNC),
        (Figures.CP, None),
        (Figures.SHA256SUM, None),
        (Figures.VERIFY, Figures.SHA256SUM),
        (Figures.VERIFY, Figures.CP),
    )
    rows = []
    for title, other in ways:
        timing = figures.timings[title]
        rows.append(
            (
                title,
                f"{timing.minimum_s:.2f} s",
                f"{timing.median_s:.2f} s",
                f"{figures.throughput_bytes / timing.median_s / 1e9:.2f} GB/s",
                f"{figures.ratio(title, other):.2f} x {other}" if other else "",
            )
        )
    return _format_table(("program", "minimum", "median", "rate", "median beside"), rows)


def _format_targets(figures: Figures) -> list[str]:
    rows = [
        (promise, target, measured, "met" if met else "missed")
        for promise, target, measured, met in _list_targets(figures)
    ]
    return _format_table(("promise", "target", "measured", ""), rows)


def _list_targets(figures: Figures) -> Iterator[tuple[str, str, str, bool]]:
    """Yield promise, target, what was measured, and whether that meets it."""
    small, _, large = figures.cases
    for title in (*(case.title_of(_TOOLS[0]) for case in figures.cases), Figures.COMMAND_LINE):
        seconds = figures.timings[title].median_s
        limit = f"< {1000 * _LIMIT_S:.0f} ms"
        yield f"nothing to do: {title}", limit, f"{1000 * seconds:.0f} ms", seconds < _LIMIT_S
    ratio = figures.ratio(large.title_of(_TOOLS[0]), small.title_of(_TOOLS[0]))
    promise = f"the same with {large.size_bytes / 1e9:g} GB as with {small.size_bytes} bytes"
    yield promise, f"<= {_TIMES_SMALL} x", f"{ratio:.2f} x", ratio <= _TIMES_SMALL
    beside = [(case.title_of(_TOOLS[0]), case) for case in figures.cases]
    for ours, case in [*beside, (Figures.COMMAND_LINE, small)]:
        for peer in _TOOLS[1:]:
            ratio = figures.ratio(case.title_of(peer), ours)
            shown = "Tristill" if ours != Figures.COMMAND_LINE else ours
            promise = f"nothing to do: {shown} under {case.title_of(peer)}"
            yield promise, f">= {_TIMES_UNDER_PEER} x", f"{ratio:.1f} x", ratio >= _TIMES_UNDER_PEER
    ratio = figures.ratio(Figures.VERIFY, Figures.SHA256SUM)
    yield (
        "verify : sha256sum",
        f"<= {_TIMES_SHA256SUM} x",
        f"{ratio:.2f} x",
        ratio <= _TIMES_SHA256SUM,
    )


def _format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [headings, ["---"] * len(headings), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
