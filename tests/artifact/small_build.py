"""A build of two small artifacts whose stages need the standard library alone, for tests.

The stages are real (`demo.rows`, `data.rows`) and run in real processes; their image is this very
Python. `python -m tests.artifact.small_build STORE` builds them; with `--kill-at POINT` it kills
itself with SIGKILL when sealing reaches that point; `--wide ROWS` builds four independent artifacts
of that many rows instead, and `--jobs N` builds side by side.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.artifact import seal
from pipeline.artifact.build import build
from pipeline.artifact.engine import Engine, Variation
from pipeline.artifact.hashing import hash_file
from pipeline.artifact.history import History
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import Step, make_steps
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.data.source import File, Source, write_source
from pipeline.demo.rows import Options, run
from pipeline.engine.stage import run_stage
from pipeline.errors import INTERRUPTED, TristillError
from pipeline.log import start_log

ENVIRONMENTS = {"train": {"python": "this one"}}


class HereEngine:
    """Runs a job document with this Python."""

    name = "here"
    listens_on = "127.0.0.1"
    chat_page = ""

    def count_missing_bytes(self, images: Collection[str]) -> tuple[Path, int]:
        return Path("/"), 0

    def prepare(self, images: Collection[str]) -> None:
        self.images = images

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        return run_stage(Path(sys.executable), image, job, work=work, log=log, variation=variation)

    def interact(
        self,
        image: str,
        argv: Sequence[str],
        *,
        inputs: Collection[Path] = (),
        port: int = 0,
        address: str = "127.0.0.1",
        before_end: Callable[[], None] | None = None,
        gpus: bool = False,
    ) -> int:
        raise NotImplementedError


@cache
def _read_digest(seed: int) -> str:
    """Return the sha256 of the file that the first rule will make."""
    with tempfile.TemporaryDirectory() as out:
        run({}, Options(seed=seed, digits=2, rows=30, held_out=4), Path(out))
        return hash_file(Path(out, "train.jsonl"))


def _write_source(seed: int, file: str) -> str:
    return write_source(Source(files=(File(name=file, sha256=_read_digest(seed)),)))


def make_rules(*, seed: int = 1, file: str = "train.jsonl", held_out: int = 5) -> tuple[Rule, ...]:
    """Return two rules: `rows` is split off what `base` makes."""
    made = Rule(
        name="base",
        image="train",
        stage="demo.rows",
        options={"seed": seed, "digits": 2, "rows": 30, "held_out": 4},
        fields={"options.seed": "demo.seed"},
    )
    split = Rule(
        name="rows",
        image="train",
        stage="data.rows",
        options={
            "sources": (_write_source(seed, file),),
            "held_out": held_out,
            "seed": 1,
            "max_characters": 0,
            "require_thinking": False,
            "near_duplicates": 0.0,
            "contamination_words": 0,
            "conversation_extension": 1,
        },
        inputs={"source-1": "base"},
    )
    return made, split


def make_wide_rules(rows: int) -> tuple[Rule, ...]:
    """Return four rules that need nothing of each other."""
    return tuple(
        Rule(
            name=name,
            image="train",
            stage="demo.rows",
            options={"seed": seed, "digits": 5, "rows": rows, "held_out": 4},
        )
        for seed, name in enumerate(("north", "east", "south", "west"))
    )


def make_small_steps(store: Store, rules: Sequence[Rule] = ()) -> list[Step]:
    """Return the steps of all the rules."""
    rules = rules or make_rules()
    return make_steps(rules, [rule.name for rule in rules], store, ENVIRONMENTS)


def build_small(
    store: Store,
    rules: Sequence[Rule] = (),
    wanted: Sequence[str] = ("rows",),
    jobs: int = 1,
    engine: Engine | None = None,
) -> dict[str, Artifact]:
    """Build as the command line does."""
    steps = make_small_steps(store, rules)
    missing = [step.rule.name for step in steps if not step.artifact]
    history = History(store, "small")
    return build(
        steps,
        wanted,
        store,
        engine or HereEngine(),
        jobs=jobs,
        explain=lambda step: history.explain_build(step, missing),
    )


def count_runs(store: Store) -> int:
    """Return how many stages were started: each writes its command to its log."""
    logs = (store.root / ".logs").glob("*.log")
    return sum(line.startswith("+ ") for log in logs for line in log.read_text().splitlines())


def read_bytes(store: Store) -> dict[str, bytes]:
    """Return every byte of every artifact, by path."""
    return {
        path.relative_to(store.root).as_posix(): path.read_bytes()
        for directory in store.root.glob("*-*")
        for path in directory.rglob("*")
        if path.is_file()
    }


def start_builder(store: Store, *arguments: str, cwd: Path = REPOSITORY) -> "subprocess.Popen[str]":
    """Start a builder in a process and a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.artifact.small_build", str(store.root), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(cwd), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def find_processes(word: str) -> list[str]:
    """Return the command lines of the other processes that name it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line and path.parent.name != str(os.getpid()):
            found.append(line)
    return found


def wait_for_processes(store: Store) -> None:
    """Wait until no process names the store: one that was killed may leave a child for a moment."""
    deadline = time.monotonic() + 60
    while find_processes(str(store.root)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert find_processes(str(store.root)) == []


def _kill_at(wanted: str) -> None:
    def reach(point: str) -> None:
        if point == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    seal.reach = reach


def main(argv: Sequence[str]) -> int:
    """Build; return the exit code that the command line would."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--kill-at", choices=seal.POINTS)
    parser.add_argument("--wide", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args(argv)
    start_log()
    if arguments.kill_at:
        _kill_at(arguments.kill_at)
    rules = make_wide_rules(arguments.wide) if arguments.wide else make_rules()
    wanted = [rule.name for rule in rules]
    try:
        build_small(open_store(arguments.store), rules, wanted, jobs=arguments.jobs)
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
