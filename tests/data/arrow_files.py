"""Arrow files of a data set with rows written by hand, for the tests of what reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tests.tiny_text import BOS, END_INST, EOS, INST, byte_ids

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("source", pa.string()),
        ("domain", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("completion_mask", pa.list_(pa.int8())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class HandRow:
    """One row: `ids` and `mask` of the same length."""

    row_id: str
    ids: list[int]
    mask: list[int]
    source: str = ""
    domain: str = ""


def make_hand_row(
    row_id: str, question: str, answer: str, *, source: str = "", domain: str = ""
) -> HandRow:
    """Return a row as it must be, of the tiny tokenizer."""
    prompt = [BOS, INST, *byte_ids(question), END_INST]
    completion = [*byte_ids(answer), EOS]
    mask = [0] * len(prompt) + [1] * len(completion)
    return HandRow(row_id=row_id, ids=prompt + completion, mask=mask, source=source, domain=domain)


def write_arrow(path: Path, rows: Sequence[HandRow], *, rows_per_batch: int = 3) -> Path:
    """Write the rows in several batches, as a large file has them."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for start in range(0, len(rows), rows_per_batch):
            part = rows[start : start + rows_per_batch]
            names = ("row_id", "source", "domain", "ids", "mask")
            columns = [[getattr(row, name) for row in part] for name in names]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=SCHEMA))
    return path
