"""Stage: the user's sources -> train.jsonl and held_out.jsonl, canonical, clean and split.

In: `source-1`, `source-2` and so on, the file or directory of each source. Out: canonical rows
(row.py), one a line, and cleaning.json: how many rows were read, kept and dropped, by reason and
source, with examples. What stays true: every row read is written or counted; no group has rows on
both sides; the bytes depend on the files, the options and nothing else; memory does not grow with
the rows, which wait on disk.
"""

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data import cleaning
from pipeline.data.cleaning import Counts, find_fault, find_filtered, parse_filter
from pipeline.data.conversation import join_conversations
from pipeline.data.formats import find_format, make_row
from pipeline.data.messages import bad_row
from pipeline.data.row import Row, parse_row, write_row
from pipeline.data.shelf import Shelf
from pipeline.data.source import PREFERENCE, Source, make_label, parse_source
from pipeline.data.sources import read_source
from pipeline.data.split import (
    Candidate,
    HeldOutTexts,
    choose_held_out,
    count_copies,
    make_order,
    read_exam,
)
from pipeline.errors import StageError
from pipeline.log import say, step

_SAY_EVERY_ROWS = 100_000


@dataclass(frozen=True, kw_only=True)
class Options:
    sources: tuple[str, ...]
    held_out: int
    seed: int
    max_characters: int
    require_thinking: bool
    near_duplicates: float
    contamination_words: int
    conversation_extension: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write train.jsonl, held_out.jsonl and cleaning.json.

    Raises StageError naming file:line for the first row that is not what its format says, when
    preference pairs are given, and when nothing is left to train on.
    """
    sources = [parse_source(text) for text in options.sources]
    counts = [Counts() for _ in sources]
    places = [inputs[make_label(number)] for number, _ in enumerate(sources, start=1)]
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        shelf = Shelf(Path(scratch) / "rows.sqlite", options.near_duplicates)
        with step("read and clean"):
            for number, (source, place) in enumerate(zip(sources, places, strict=True)):
                _read(source, number, place, options, shelf, counts)
        with step("split"):
            held_out = _choose(shelf, options, counts)
            _place(shelf, held_out, sources, options, counts)
        with step("write"):
            judged = (write_row(_make_judged(shelf.read(each.number))) for each in held_out)
            trained = shelf.read_training()
            if options.conversation_extension > 1:
                joined = join_conversations(map(parse_row, trained), options.conversation_extension)
                trained = map(write_row, joined)
            kept = {
                "held_out": _write(out / "held_out.jsonl", judged),
                "train": _write(out / "train.jsonl", trained),
            }
        shelf.close()
    _report(out / "cleaning.json", kept, sources, counts)
    say(f"  {sum(not each.is_unasked for each in held_out)} held-out rows can be asked and graded")


def _read(
    source: Source,
    number: int,
    place: Path,
    options: Options,
    shelf: Shelf,
    counts: list[Counts],
) -> None:
    """Put the source's good rows on the shelf, and count the others."""
    filters = tuple(map(parse_filter, source.keep))
    count, form = counts[number], ""
    for on, columns in read_source(source, place, make_label(number + 1)):
        where = _name_place(on, source, place)
        form = form or find_format(columns, source, on=on)
        count.read += 1
        # Unique over all sources, and in their order.
        row_id = f"{sum(each.read for each in counts[: number + 1]):08d}"
        reason = find_filtered(columns, filters, on=on)
        if not reason:
            row = replace(make_row(columns, form, source, row_id=row_id, where=on), source=where)
            line = _write_line(row, on)
            reason = find_fault(
                row,
                line,
                max_characters=options.max_characters,
                require_thinking=options.require_thinking,
            )
        if not reason and form != PREFERENCE:
            reason = shelf.add(row, line, number)
        if reason:
            count.drop(reason, where)
        if count.read % _SAY_EVERY_ROWS == 0:
            say(f"    {count.read:,} rows of source {number + 1}")
    if form == PREFERENCE:
        raise _refuse_preference(count)


def _name_place(on: str, source: Source, place: Path) -> str:
    """Return what rows say of where they come from; messages say the file's own name."""
    return source.files[0].name + on.removeprefix(place.name) if source.is_file else on


def _write_line(row: Row, on: str) -> str:
    """Return the row's line; StageError where Arrow held what JSON cannot."""
    try:
        return write_row(row)
    except (TypeError, ValueError, RecursionError) as error:
        raise bad_row("a row's tools are not JSON", on=on, why=str(error)) from None


def _refuse_preference(count: Counts) -> StageError:
    valid = count.read - sum(count.dropped.values())
    return StageError(
        "preference pairs cannot be trained on yet",
        on=f"{count.read} rows, {valid} of them valid pairs",
        why="supervised training learns one answer; pairs are for methods that compare two",
        then='for the chosen side alone: format = "messages" and rename = ["chosen=messages"], or'
        ' format = "prompt_completion" and rename = ["chosen=completion"]',
    )


def _choose(shelf: Shelf, options: Options, counts: list[Counts]) -> list[Candidate]:
    groups = sum(1 for _ in shelf.list_candidates(options.seed))
    if not groups:
        raise _nothing_left(counts)
    return choose_held_out(shelf.list_candidates(options.seed), options.held_out, groups)


def _nothing_left(counts: list[Counts]) -> StageError:
    reasons = _sum_dropped(counts)
    return StageError(
        "no row is left to train on",
        on=f"{sum(each.read for each in counts)} rows",
        why="; ".join(f"{reason}: {number}" for reason, number in reasons.items()) or "none came",
        then="correct the source, or the limits and filters of [dataset] in the recipe",
    )


def _place(
    shelf: Shelf,
    held_out: list[Candidate],
    sources: list[Source],
    options: Options,
    counts: list[Counts],
) -> None:
    """Say of each row that is not held out whether and where it stands in the training rows."""
    chosen = {each.number for each in held_out}
    words = options.contamination_words
    texts = HeldOutTexts([shelf.read(each) for each in sorted(chosen)], words) if words else None
    placed = 0
    for number, source, row in shelf.read_all():
        group = shelf.groups.find(number)
        if group in chosen:
            if number != group:
                counts[source].drop(cleaning.HELD_OUT_AGAIN, row.source)
            continue
        if texts is not None and texts.is_in(row):
            counts[source].drop(cleaning.CONTAMINATED, row.source)
            continue
        copies = count_copies(options.seed, row.id, sources[source].weight)
        if not copies:
            counts[source].drop(cleaning.NOT_SAMPLED, row.source)
        for copy in range(copies):
            order = make_order(options.seed, f"shuffle {copy}", row.id.encode())
            shelf.place(number, copy, order)
            placed += 1
    if not placed:
        raise _nothing_left(counts)


def _make_judged(row: Row) -> Row:
    exam = read_exam(row)
    return replace(row, problem=exam[0], solution=exam[1]) if exam else row


def _write(path: Path, lines: Iterable[str]) -> int:
    written = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")
            written += 1
    return written


def _sum_dropped(counts: list[Counts]) -> dict[str, int]:
    reasons = sorted({reason for each in counts for reason in each.dropped})
    return {reason: sum(each.dropped.get(reason, 0) for each in counts) for reason in reasons}


def _report(
    path: Path, kept: Mapping[str, int], sources: list[Source], counts: list[Counts]
) -> None:
    """Write cleaning.json, and say what a person should know."""
    dropped = _sum_dropped(counts)
    read = sum(each.read for each in counts)
    document = {
        "read": read,
        "kept": {"train": kept["train"], "held_out": kept["held_out"]},
        "dropped": dropped,
        "sources": [
            {
                "names": [file.name for file in source.files] or [source.hub],
                "weight": source.weight,
                "read": count.read,
                "dropped": dict(sorted(count.dropped.items())),
                "examples": dict(sorted(count.examples.items())),
            }
            for source, count in zip(sources, counts, strict=True)
        ],
    }
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    say(f"  {read} rows: {kept['train']} to train on, {kept['held_out']} held out")
    for reason, number in dropped.items():
        say(f"  {number} rows left out: {reason}")
