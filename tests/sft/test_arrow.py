"""Rows of any number are mapped, not held, with the labels that the mask says."""

from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.data.packing import pack_rows
from pipeline.sft.arrow import IGNORED, read_split
from tests.data.arrow_files import SCHEMA

pytestmark = pytest.mark.train

_TOKENS, _BATCHES, _ROWS = 1000, 20, 50


def _make_batch(number: int) -> pa.RecordBatch:
    ids = [[number, row, *range(_TOKENS - row)] for row in range(_ROWS)]
    mask = [[0, 1] + [1] * (len(each) - 2) for each in ids]
    names = [f"{number}-{row}" for row in range(_ROWS)]
    columns = {"row_id": names, "input_ids": ids, "completion_mask": mask}
    blank = [""] * _ROWS
    arrays = [pa.array(columns.get(field.name, blank), field.type) for field in SCHEMA]
    return pa.record_batch(arrays, schema=SCHEMA)


@pytest.fixture(scope="module")
def arrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("arrow") / "train.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as writer:
        for number in range(_BATCHES):
            writer.write_batch(_make_batch(number))
    return path


def test_what_is_made_of_rows_is_not_held(arrow: Path, tmp_path: Path) -> None:
    labels_bytes = 8 * _TOKENS * _BATCHES * _ROWS
    before = pa.total_allocated_bytes()
    rows = read_split(arrow, scratch=tmp_path)
    packs = pack_rows(rows, 2 * _TOKENS + 100, scratch=tmp_path)
    assert (len(rows), len(packs)) == (_BATCHES * _ROWS, _BATCHES * _ROWS // 2)
    assert pa.total_allocated_bytes() - before < labels_bytes / 20
    in_memory = read_split(arrow)
    assert pa.total_allocated_bytes() - before > labels_bytes
    assert len(in_memory) == len(rows)


@pytest.mark.parametrize("has_scratch", [False, True])
@pytest.mark.parametrize("limit", [None, 1, _ROWS, _ROWS + 7])
def test_labels_and_packs_are_the_same_wherever_they_lie(
    arrow: Path, tmp_path: Path, limit: int | None, has_scratch: bool
) -> None:
    scratch = tmp_path if has_scratch else None
    rows = read_split(arrow, limit=limit, scratch=scratch)
    assert len(rows) == (limit or _BATCHES * _ROWS)
    for number in {0, len(rows) // 2, len(rows) - 1}:
        batch, row = divmod(number, _ROWS)
        ids = [batch, row, *range(_TOKENS - row)]
        assert rows[number] == {"input_ids": ids, "labels": [IGNORED, *ids[1:]]}
    packs = pack_rows(rows, 2 * _TOKENS + 100, scratch=scratch)
    found = packs[0]
    first = rows[0]
    assert found["input_ids"][: len(first["input_ids"])] == first["input_ids"]
    assert found["labels"][: len(first["labels"])] == first["labels"]
    assert sum(map(sum, packs["input_ids"][:])) == sum(map(sum, rows["input_ids"][:]))
