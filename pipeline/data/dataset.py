"""Rows -> token ids and completion masks in Arrow files, the very bytes that training reads.

In: `text` (for its tokenizer and chat template) and `rows`. Out: train.arrow, held_out.arrow
(Arrow IPC streams, `partition.SCHEMA`, in the rows' order) and statistics.json. What stays true:
no answer loses its end; a row that is too long is counted with the reason; the bytes depend on the
rows and the options alone, not on how many processes rendered them. Memory does not grow with the
rows: parts of the file are rendered by all cores and written in their order. Each finished part
lies in the work area, so that a run after a kill goes on from there.
"""

import gc
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.artifact.forking import end_with_parent
from pipeline.artifact.progress import Progress
from pipeline.artifact.publish import publish
from pipeline.data.mask_check import Borders, check_batch
from pipeline.data.partition import (
    PART_SCHEMA,
    SCHEMA,
    Part,
    Plan,
    list_parts,
    make_borders,
    make_renderer,
    render_part,
)
from pipeline.data.statistics import SPLITS, Statistics, make_batch
from pipeline.data.style import Style
from pipeline.errors import StageError, TristillError
from pipeline.log import say

_UNFINISHED = ".unfinished"

# How many parts may be rendered before their turn to be written, for each process.
_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    sequence_length: int
    too_long: str
    supervise: str
    thinking: str


@dataclass(kw_only=True)
class Left:
    """What is not in a split, and why."""

    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    shortest: int | None = None
    truncated: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of one batch, PART_SCHEMA."""
        self.rows += batch.num_rows
        self.dropped.update(filter(None, batch.column("dropped").to_pylist()))
        self.truncated += pc.sum(batch.column("truncated").cast(pa.int32())).as_py()
        shortest = pc.min(batch.column("length")).as_py()
        self.shortest = shortest if self.shortest is None else min(shortest, self.shortest)


def count_processes(parts: int) -> int:
    """Return how many processes render: one per core that this one may use, and per part."""
    return max(1, min(parts, len(os.sched_getaffinity(0))))


def write_part(part: Part, plan: Plan, path: Path) -> tuple[str, str, str, str] | None:
    """Render one part into its file, unless that is there; return an error's four parts."""
    if path.exists():
        return None
    unfinished = path.with_suffix(f".{os.getpid()}{_UNFINISHED}")
    try:
        with _open_arrow(unfinished, PART_SCHEMA) as writer:
            for batch in render_part(part, plan):
                writer.write_batch(batch)
    except TristillError as error:  # an exception with named arguments crosses no process
        unfinished.unlink()
        return error.what, error.on, error.why, error.then
    publish(unfinished, path)
    return None


def render_parts(
    parts: Sequence[Part], plan: Plan, work: Path, *, processes: int | None = None
) -> Iterator[Path]:
    """Yield the file of each part in their order; those that are finished in `work` are kept.

    Raises StageError for the first bad row, in the order of the rows.
    """
    paths = [work / f"{part.start:015d}-{part.sha256[:32]}.arrow" for part in parts]
    if finished := sum(path.exists() for path in paths):
        say(f"  {finished} of {len(paths)} parts were finished before")
    processes = processes or count_processes(len(parts))
    if processes == 1:
        for part, path in zip(parts, paths, strict=True):
            _raise_failure(write_part(part, plan, path))
            yield path
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for each process
    # Forked, so that the processes share the tokenizer that was read before; frozen, so that none
    # goes through it at each collection of garbage, which takes a tenth of the time and its pages.
    gc.freeze()
    pool = ProcessPoolExecutor(
        processes,
        mp_context=get_context("fork"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    try:
        waiting: deque[tuple[Future[tuple[str, str, str, str] | None], Path]] = deque()
        for part, path in zip(parts, paths, strict=True):
            waiting.append((pool.submit(write_part, part, plan, path), path))
            if len(waiting) == processes * _AHEAD:
                yield _await_next(waiting)
        while waiting:
            yield _await_next(waiting)
    finally:
        pool.shutdown(cancel_futures=True)
        gc.unfreeze()


def _await_next(waiting: deque[tuple[Future[tuple[str, str, str, str] | None], Path]]) -> Path:
    future, path = waiting.popleft()
    try:
        _raise_failure(future.result())
    except BrokenProcessPool as error:
        raise StageError(
            "a process that renders rows died",
            on=path.name,
            why="the system ended it, most often for want of memory",
            then="free memory, or give the container more, and build again",
        ) from error
    return path


def _raise_failure(failure: tuple[str, str, str, str] | None) -> None:
    if failure:
        what, on, why, then = failure
        raise StageError(what, on=on, why=why, then=then)


@contextmanager
def _open_arrow(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatchStreamWriter]:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        yield writer


def _read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    # Not mapped: pages of a mapped file would count as this process's memory.
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_stream(source) as reader:
        yield from reader


def make_split(
    rows: Path, plan: Plan, arrow: Path, *, work: Path, borders: Borders
) -> tuple[Statistics, Left]:
    """Write one split's Arrow file from its rows; return what is in it and what is not.

    Raises StageError when no row is left, or a mask cannot be right.
    """
    statistics, left = Statistics(), Left()
    tokenizer = make_renderer(plan.text, plan.style).tokenizer
    parts = list_parts(rows)
    progress = Progress(f"  {arrow.stem}", len(parts), "parts")
    with _open_arrow(arrow, SCHEMA) as writer:
        for done, path in enumerate(render_parts(parts, plan, work), start=1):
            for batch in _read_batches(path):
                left.add(batch)
                kept = batch.filter(pc.is_null(batch.column("dropped"))).select(SCHEMA.names)
                if kept.num_rows:
                    checked = make_batch(kept)
                    check_batch(checked, borders, tokenizer)
                    statistics.add(checked)
                    writer.write_batch(kept)
            progress.show(done)
    progress.close()
    statistics.dropped = left.dropped
    limit = plan.sequence_length
    if not statistics.rows:
        raise StageError(
            f"no {arrow.stem} row is left",
            on=f"{left.rows} rows, sequence_length {limit}",
            why=f"the shortest has {left.shortest} tokens" if left.rows else "the file has no rows",
            then="raise dataset.sequence_length in the recipe, or bring shorter rows",
        )
    say(f"  {arrow.stem}: {statistics.rows} rows, {left.truncated} of them cut")
    for why, count in sorted(left.dropped.items()):
        say(f"    {count} left out: {why} {limit}")
    return statistics, left


def run(inputs: Mapping[str, Path], options: Options, out: Path, work: Path) -> None:
    """Write both Arrow files and the statistics; parts that an earlier run left in `work` are used.

    Raises StageError naming the first row that it cannot use.
    """
    style = Style(supervise=options.supervise, thinking=options.thinking)
    plan = Plan(
        text=inputs["text"],
        style=style,
        sequence_length=options.sequence_length,
        too_long=options.too_long,
    )
    borders = make_borders(plan.text, style)
    for unfinished in work.glob(f"*{_UNFINISHED}"):
        unfinished.unlink()
    found = {}
    for split in SPLITS:
        rows, arrow = inputs["rows"] / f"{split}.jsonl", out / f"{split}.arrow"
        found[split] = make_split(rows, plan, arrow, work=work, borders=borders)
    summary = {
        split: statistics.make_document() | {"truncated": left.truncated}
        for split, (statistics, left) in found.items()
    }
    text = json.dumps(summary, indent=2, sort_keys=True) + "\n"
    (out / "statistics.json").write_text(text, encoding="utf-8")
