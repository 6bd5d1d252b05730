"""Parquet, and what the library datasets saved or loads."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.hub import read_saved
from pipeline.data.readers import read_records
from pipeline.errors import StageError
from tests.data.row_files import Build

pytestmark = pytest.mark.train

_ROWS = [
    {"q": f"é{number}", "turns": [{"role": "user", "content": "x"}], "n": number}
    for number in range(600)
]


def read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(record.where, record.columns) for record in read_records(path, "parquet", path.name)]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("parquet") / "data.parquet"
    pq.write_table(pa.Table.from_pylist(_ROWS), path, row_group_size=100)
    return path


def test_parquet(parquet: Path) -> None:
    found = read(parquet)
    assert [columns for _, columns in found] == _ROWS
    assert found[-1][0] == "data.parquet:600"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(data=st.data())
def test_a_damaged_parquet_file(tmp_path: Path, parquet: Path, data: st.DataObject) -> None:
    content = bytearray(parquet.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), len(content) // 2, 3, 0]))
    (tmp_path / "damaged.parquet").write_bytes(content[:cut])
    try:
        read(tmp_path / "damaged.parquet")
    except StageError:
        return


@pytest.mark.parametrize("is_split", [False, True])
def test_a_saved_dataset(tmp_path: Path, is_split: bool) -> None:
    saved = datasets.Dataset.from_list(_ROWS)
    if is_split:
        saved = datasets.DatasetDict({"train": saved, "test": saved.select([0])})
    saved.save_to_disk(str(tmp_path / "saved"))
    found = list(read_saved(tmp_path / "saved", "train", "saved"))
    assert [record.columns for record in found] == _ROWS
    assert found[1].where == "saved:2"
    if is_split:
        with pytest.raises(StageError, match="no split 'dev'") as caught:
            list(read_saved(tmp_path / "saved", "dev", "saved"))
        assert "train, test" in caught.value.why


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"_data_files": 7}'])
def test_a_damaged_saved_dataset(tmp_path: Path, content: bytes) -> None:
    saved = tmp_path / "saved"
    datasets.Dataset.from_list(_ROWS).save_to_disk(str(saved))
    (saved / "state.json").write_bytes(content)
    with pytest.raises(StageError, match="saved dataset cannot be read"):
        list(read_saved(saved, "train", "saved"))


def test_what_arrow_holds_and_json_cannot_is_named(tmp_path: Path) -> None:
    build = Build(tmp_path)
    call = {"name": "f", "arguments": {"x": float("nan")}}
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]
    table = pa.Table.from_pylist([{"messages": turns}])
    pq.write_table(table, tmp_path / "made.parquet")
    build.add((tmp_path / "made.parquet").read_bytes(), "data.parquet")
    with pytest.raises(StageError, match="not JSON") as caught:
        build.run()
    assert caught.value.on == "data.parquet:1"
