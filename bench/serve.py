"""`python -m bench.serve --gguf FILE`: our server beside others, and under attack.

FILE is a GGUF of the demonstration (`out/demo/gguf-Q8_0/model.gguf`). With it, which shows what a
server itself costs, and with a file of random weights, which shows what users wait for: tokens per
second of 1, 8 and 32 clients by ours, as `make serve` starts it, by a bare llama-server, and by one
that splits thinking off as ours does; of 8 clients by `python -m llama_cpp.server`. All of them run
at once and are asked the same in short turns, since the machine's own speed changes by more than
they differ. Then 10,000 requests of which most are not meant well, and one of two servers killed
under traffic; every answer is held against what the model says when it is asked alone. The report
goes to stdout in Markdown and to `bench/results/serve.md`; with `--quick`, which only tries the
script, to stdout alone.
"""

import argparse
import datetime
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.clients import Load, make_sums, measure
from bench.hostile import attack
from bench.machine import read_cpu_model, read_memory_bytes
from bench.random_gguf import make_gguf
from bench.recovery import find_haproxy, measure_recovery
from bench.script import run_script, scratch_directory
from bench.serve_answers import ask_alone
from bench.serve_table import BARE, BINDING, OURS, SPLITTING, Figures, Throughput, format_report
from bench.servers import Server, Settings, bare, binding, ours, splitting
from pipeline.artifact.key import REPOSITORY
from pipeline.log import step
from pipeline.serve.gguf_file import read_gguf

_RESULT = REPOSITORY / "bench" / "results" / "serve.md"
_PARALLEL, _CONTEXT = 8, 512
_TURNS = 3  # of a round: each server is asked so often before all are started anew
_HOSTILE = 10_000
# Each is asked some ten times.
_SUMS = 300


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A file, the most tokens of an answer, and how many are asked for by how many clients."""

    settings: Settings
    is_checked: bool
    most_tokens: int
    requests: Mapping[int, int]


_Start = Callable[[Settings], AbstractContextManager[Server]]
_SERVERS: tuple[tuple[str, _Start, tuple[int, ...]], ...] = (
    (OURS, ours, (1, 8, 32)),
    (SPLITTING, splitting, (1, 8, 32)),
    (BARE, bare, (1, 8, 32)),
    (BINDING, binding, (8,)),
)


def run(arguments: argparse.Namespace) -> str:
    """Measure everything; return the report."""
    with scratch_directory(arguments.scratch.resolve() / "tristill-serve") as work:
        return _run(arguments, work)


def _run(arguments: argparse.Namespace, work: Path) -> str:
    share = 0.05 if arguments.quick else 1.0
    rounds, turns = (1, 1) if arguments.quick else (arguments.rounds, _TURNS)
    head = _describe_machine()
    demo = _make_settings(arguments.gguf.resolve(), work)
    with step("making a model of random weights"):
        random = _make_settings(make_gguf(work), work)
    cases = [
        # Its answers have 46 tokens; the other's do not end, and are as long as a short trace.
        _Case(settings=demo, is_checked=True, most_tokens=48, requests={1: 128, 8: 256, 32: 256}),
        _Case(settings=random, is_checked=False, most_tokens=160, requests={1: 1, 8: 8, 32: 32}),
    ]
    throughputs = [_measure(case, rounds, turns) for case in cases]
    with step(f"{_SUMS} sums, asked alone"):
        alone = _make_settings(arguments.gguf.resolve(), work, parallel=1)
        answers = ask_alone(alone, make_sums(_SUMS))
    with step("requests that are not meant well"), ours(demo) as server:
        outcome = attack(server.port, int(share * _HOSTILE), answers)
    haproxy = find_haproxy()
    with step("a server killed under traffic"):
        recovery = measure_recovery(demo, haproxy, answers) if haproxy else None
    return format_report(
        Figures(
            head=head,
            parallel=_PARALLEL,
            throughputs=throughputs,
            asked_alone=len(answers),
            right_alone=sum(each.is_right(said.content) for each, said in answers.items()),
            outcome=outcome,
            recovery=recovery,
        )
    )


def _measure(case: _Case, rounds: int, turns: int) -> Throughput:
    """Return what each server gave each number of clients, in so many turns of so many rounds."""
    loads: dict[tuple[str, int], list[Load]] = {
        (name, each): [] for name, _, clients in _SERVERS for each in clients
    }
    title = f"{case.settings.gguf.stat().st_size / 1e6:.1f} MB"
    options = {"max_tokens": case.most_tokens}
    for number in range(rounds):
        with step(f"{title}, round {number + 1}"), ExitStack() as ending:
            ports = {
                name: ending.enter_context(start(case.settings)).port for name, start, _ in _SERVERS
            }
            for port in ports.values():
                measure(port, make_sums(8), 4, {"max_tokens": 8})
            for turn in range(number * turns, (number + 1) * turns):
                for name, each in _order(turn):
                    sums = make_sums(case.requests[each], seed=turn)
                    loads[name, each].append(measure(ports[name], sums, each, options))
    return Throughput(title=title, is_checked=case.is_checked, loads=loads)


def _order(turn: int) -> Iterator[tuple[str, int]]:
    """Yield every server and number of clients, those that are compared one after the other."""
    for each in (1, 8, 32):
        names = [name for name, _, clients in _SERVERS if each in clients]
        # Whoever is first may have a colder machine: every other turn begins at the other end.
        yield from ((name, each) for name in names[:: 1 if turn % 2 == 0 else -1])


def _make_settings(gguf: Path, work: Path, parallel: int = _PARALLEL) -> Settings:
    recipe = work / f"bench-{gguf.parent.name}-{parallel}.toml"
    name = read_gguf(gguf).metadata.get("general.name", "")
    recipe.write_text(
        '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n'
        f'[gguf]\nname = "{name}"\n[train]\naccelerator = "cpu"\n'
        # Kept prompts are memory that grows on purpose, up to this.
        f'[serve]\naccelerator = "cpu"\ncontext = {_CONTEXT}\nparallel = {parallel}\n'
        "prompt_cache_mib = 0\nmetrics = true\n",
        encoding="utf-8",
    )
    return Settings(gguf=gguf, recipe=recipe, context=_CONTEXT, parallel=parallel, work=work)


def _describe_machine() -> str:
    memory_gb = read_memory_bytes("MemTotal") / 1e9
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}. {read_cpu_model()}, {os.cpu_count()} cores,"
        f" {memory_gb:.0f} GB of memory; load average at the start {os.getloadavg()[0]:.1f}."
        f" Python {platform.python_version()}."
    )


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.serve", description=__doc__)
    add = parser.add_argument
    add("--gguf", type=Path, required=True, metavar="FILE", help="of the demonstration")
    add("--scratch", type=Path, default=REPOSITORY / "bench" / "work", metavar="DIR")
    add("--rounds", type=int, default=4, metavar="N", help="each of three turns")
    add("--quick", action="store_true", help="less of all, one round, no result file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    # A script ignores it in its background, and so would the servers, which end on it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


if __name__ == "__main__":
    sys.exit(main())
