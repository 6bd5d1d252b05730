"""Figures of the servers -> the report, in Markdown."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.clients import Load
from bench.hostile import IN_EARNEST, Outcome
from bench.recovery import Recovery

OURS, BARE, BINDING = "ours", "llama-server", "llama_cpp.server"
SPLITTING = "llama-server that splits"
_LEAST_OF_BARE, _LEAST_OF_BINDING = 0.98, 2.0
_FLAT = 1.05
_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """A file: what it is called, whether its answers can be right, and `loads`: of each server and
    number of clients, one for each turn."""

    title: str
    is_checked: bool
    loads: Mapping[tuple[str, int], Sequence[Load]]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Everything that was measured; `right_alone`: of `asked_alone` sums, asked alone."""

    head: str
    parallel: int
    throughputs: Sequence[Throughput]
    asked_alone: int
    right_alone: int
    outcome: Outcome
    recovery: Recovery | None


def format_report(figures: Figures) -> str:
    """Return the report."""
    headings = ["GGUF", "server", "clients", "tokens/s", "requests/s"]
    headings += ["median, ms", "95 %, ms", "failed", "right"]
    lines = [line for each in figures.throughputs for line in _list_loads(each)]
    turns = len(next(iter(figures.throughputs[0].loads.values())))
    parts = [
        "# The server under load, and under attack",
        f"`python -m bench.serve`; {figures.head}",
        "The smaller GGUF is the demonstration's, and shows what a server itself costs; the larger"
        " one has random weights. Ours as `make serve` starts it; llama-server with the same number"
        f" of slots, {figures.parallel}, of the same context: alone, where these files' thinking"
        " stays in the text, and with the template by which ours splits it off. With that,"
        " llama.cpp reads the template and makes tokens of its marks at each request, 2 to 3 ms"
        " whatever the model and the answer are: much beside the smaller file's answers, which take"
        " 8 ms, nothing beside real ones. Clients on the same machine, each over one connection."
        f" All servers run at once and are asked the same in short turns, {turns} of them; medians"
        " of the turns, ratios within a turn, each with the standard error of their mean.",
        "## Targets",
        "\n".join([_table(["promise", "target", "measured", ""]), *_list_targets(figures)]),
        "## Throughput",
        "\n".join([_table(headings), *lines]),
        "## What was sent",
        "\n".join([_table(["kind", "requests"]), *_list_kinds(figures.outcome)]),
        f"In earnest {figures.asked_alone} sums are asked, again and again. One client asked them"
        " before, of a server with one slot that keeps no prompt, and every answer is held against"
        f" that one, to the character. {figures.right_alone} of them are right; what else the model"
        " adds, it adds wrongly alone as in company.",
        _describe_recovery(figures.recovery),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str]) -> str:
    return f"| {' | '.join(headings)} |\n|{' --- |' * len(headings)}"


def _list_loads(throughput: Throughput) -> Iterator[str]:
    for (server, clients), rounds in throughput.loads.items():
        latencies = sorted(each for load in rounds for each in load.latencies_s) or [0.0]
        middle, high = (
            latencies[min(int(share * len(latencies)), len(latencies) - 1)] for share in (0.5, 0.95)
        )
        right, failed = (
            sum(getattr(each, name) for each in rounds) for name in ("right", "failed")
        )
        requests = statistics.median(each.requests / each.seconds for each in rounds)
        answered = sum(each.requests for each in rounds) - failed
        told = f"{right:,} of {answered:,}" if throughput.is_checked else "-"
        yield (
            f"| {throughput.title} | {server} | {clients} | {_find_speed(rounds):,.0f} |"
            f" {requests:.1f} | {1000 * middle:.0f} | {1000 * high:.0f} | {failed} | {told} |"
        )


def _find_speed(rounds: Sequence[Load]) -> float:
    return statistics.median(each.tokens_per_s for each in rounds)


def _list_targets(figures: Figures) -> Iterator[str]:
    for throughput in figures.throughputs:
        yield from _list_ratios(throughput)
    outcome = figures.outcome
    total = outcome.sent.total()
    yield _line(f"alive after {total:,} requests", "yes", _say(outcome.is_alive), outcome.is_alive)
    busy = outcome.busy_after
    yield _line("slots that are busy afterwards", "0", str(busy), busy == 0)
    promise = f"of {outcome.sent[IN_EARNEST]:,} answers, other than when asked alone"
    shown = "; ".join(f"{sum_}: {said.content!r}" for sum_, said in outcome.wrong[:_SHOWN])
    yield _line(promise, "0", f"{len(outcome.wrong)} {shown}".strip(), not outcome.wrong)
    unexpected = outcome.unexpected.total()
    told = "; ".join(f"{what}: {count}" for what, count in outcome.unexpected.most_common(_SHOWN))
    yield _line("answers that should not be", "0", f"{unexpected} {told}".strip(), not unexpected)
    growth, words = _describe_memory(outcome.resident_bytes)
    yield _line("memory at the end / after a quarter", f"<= {_FLAT}", words, growth <= _FLAT)


def _list_ratios(throughput: Throughput) -> Iterator[str]:
    loads = throughput.loads
    asked = [(name, each, _LEAST_OF_BARE) for name, each in loads if name in (SPLITTING, BARE)]
    asked += [(BINDING, each, _LEAST_OF_BINDING) for name, each in loads if name == BINDING]
    for other, clients, least in asked:
        # Within a turn, for the machine is faster at some times than at others.
        pairs = zip(loads[OURS, clients], loads[other, clients], strict=True)
        ratios = [ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in pairs]
        ratio, error = statistics.median(ratios), _find_error(ratios)
        many = f"{clients} client{'s' if clients > 1 else ''}"
        promise = f"{throughput.title}: tokens/s against {other}, {many}"
        yield _line(promise, f">= {least:g}x", f"{ratio:.3f}x ± {error:.3f}", ratio >= least)


def _find_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean; of a single value nothing is known."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def _describe_memory(samples: Sequence[int]) -> tuple[float, str]:
    start, end = samples[len(samples) // 4], samples[-1]
    growth = end / start if start else float("inf")
    return growth, f"{growth:.3f} ({start / 1e6:.1f} to {end / 1e6:.1f} MB)"


def _list_kinds(outcome: Outcome) -> Iterator[str]:
    for kind, count in sorted(outcome.sent.items(), key=lambda item: -item[1]):
        yield f"| {kind} | {count:,} |"
    yield f"\nIn {outcome.seconds:.0f} s."


def _describe_recovery(recovery: Recovery | None) -> str:
    head = "## A server killed under traffic\n\n"
    if recovery is None:
        return f"{head}Not measured: this host has no HAProxy."
    return (
        f"{head}Two of ours behind HAProxy, half of the traffic each, 8 clients that do not try"
        f" again. SIGKILL of one: of {recovery.requests:,} requests {recovery.failed} failed and"
        f" {recovery.wrong} answers were other than when asked alone. It answered again after"
        f" {recovery.ready_s:.1f} s, and had its share of the traffic after"
        f" {recovery.back_s:.1f} s."
    )


def _line(promise: str, target: str, measured: str, is_met: bool) -> str:
    return f"| {promise} | {target} | {measured} | {'met' if is_met else 'NOT met'} |"


def _say(told: bool) -> str:
    return "yes" if told else "no"
