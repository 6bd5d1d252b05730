"""Rows -> token ids and completion masks in Arrow files, the very bytes that training reads.

In: `text` (for its tokenizer and chat template) and `rows`. Out: train.arrow, held_out.arrow
(Arrow IPC streams: row_id string, input_ids list<int32>, completion_mask list<int8>) and
statistics.json. What stays true: no row is truncated; a row that is too long is left out and
counted with the reason.
"""

import json
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from pipeline.errors import StageError
from pipeline.log import say
from pipeline.sft.chat import Rendered, make_messages, read_tokenizer, render
from pipeline.sft.trace import make_assistant_text

SPLITS = ("train", "held_out")
TOO_LONG = "longer than sequence_length"
SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("completion_mask", pa.list_(pa.int8())),
    ]
)
ROWS_PER_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Options:
    sequence_length: int


def _render_rows(path: Path, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[str, Rendered]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            row = json.loads(line)
            text = make_assistant_text(row["thinking"], row["solution"])
            on = f"row {row['id']} ({path.name}:{number}): {row['problem'][:60]!r}"
            yield row["id"], render(tokenizer, make_messages(row["problem"], text), on=on)


def _write_arrow(path: Path, rows: list[tuple[str, Rendered]]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for start in range(0, len(rows), ROWS_PER_BATCH):
            part = rows[start : start + ROWS_PER_BATCH]
            columns = [
                [row_id for row_id, _ in part],
                [rendered.input_ids for _, rendered in part],
                [rendered.completion_mask for _, rendered in part],
            ]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))


def _make_statistics(rows: list[tuple[str, Rendered]], dropped: int) -> dict[str, object]:
    lengths = [len(rendered.input_ids) for _, rendered in rows]
    return {
        "rows": len(rows),
        "dropped": {TOO_LONG: dropped},
        "tokens": sum(lengths),
        "supervised_tokens": sum(sum(rendered.completion_mask) for _, rendered in rows),
        "lengths": {
            "min": min(lengths),
            "median": statistics.median_low(lengths),
            "max": max(lengths),
        },
    }


def _make_split(
    split: str, rows: Path, tokenizer: PreTrainedTokenizerFast, limit: int, out: Path
) -> dict[str, object]:
    rendered = list(_render_rows(rows / f"{split}.jsonl", tokenizer))
    kept = [row for row in rendered if len(row[1].input_ids) <= limit]
    dropped = len(rendered) - len(kept)
    say(f"  {split}: {len(kept)} rows, {dropped} left out ({TOO_LONG} {limit})")
    if not kept:
        shortest = min((len(row.input_ids) for _, row in rendered), default=0)
        raise StageError(
            f"no {split} row is left",
            on=f"{len(rendered)} rows, sequence_length {limit}",
            why=f"the shortest has {shortest} tokens" if rendered else "the file has no rows",
            then="raise dataset.sequence_length in the recipe, or bring shorter rows",
        )
    _write_arrow(out / f"{split}.arrow", kept)
    return _make_statistics(kept, dropped)


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write both Arrow files and statistics.json. Raises StageError naming a row it cannot use."""
    tokenizer = read_tokenizer(inputs["text"])
    summary = {
        split: _make_split(split, inputs["rows"], tokenizer, options.sequence_length, out)
        for split in SPLITS
    }
    text = json.dumps(summary, indent=2, sort_keys=True) + "\n"
    (out / "statistics.json").write_text(text, encoding="utf-8")
