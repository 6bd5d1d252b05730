"""Reading is strict; writing gives the same bytes for the same tensors and holds one shard."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.shards import INDEX, SINGLE, ShardWriter, read_checkpoint
from pipeline.errors import StageError

pytestmark = pytest.mark.convert

TENSORS = {name: torch.full((4, 4), n).bfloat16() for n, name in enumerate("abcdef")}


def write(folder: Path, shard_bytes: int) -> None:
    folder.mkdir()
    writer = ShardWriter(folder, shard_bytes)
    for name, tensor in TENSORS.items():
        writer.add(name, tensor)
    writer.finish()


def change_index(folder: Path, **changes: str | None) -> None:
    index = json.loads((folder / INDEX).read_text())
    weight_map = index["weight_map"] | changes
    index["weight_map"] = {name: shard for name, shard in weight_map.items() if shard}
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(("shard_bytes", "files"), [(10_000, 1), (64, 4), (1, 7)])
def test_what_is_written_is_read_back(tmp_path: Path, shard_bytes: int, files: int) -> None:
    write(tmp_path / "out", shard_bytes)
    assert len(list((tmp_path / "out").iterdir())) == files
    checkpoint = read_checkpoint(tmp_path / "out")
    assert set(checkpoint.entries) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.read(name), tensor)


def test_the_shards_have_the_usual_names(tmp_path: Path) -> None:
    write(tmp_path / "out", 64)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [*(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)), INDEX]
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["metadata"] == {"total_size": 192}
    assert index["weight_map"]["c"] == "model-00002-of-00003.safetensors"


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, 64)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_transformers_can_read_it(tmp_path: Path) -> None:
    write(tmp_path / "out", 10_000)
    assert load_file(tmp_path / "out" / SINGLE).keys() == TENSORS.keys()


def break_missing(folder: Path) -> None:
    (folder / "model-00002-of-00003.safetensors").unlink()


def break_truncated(folder: Path) -> None:
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])


def break_missing_file(folder: Path) -> None:
    change_index(folder, z="model-00009-of-00003.safetensors")


def break_lacking_tensor(folder: Path) -> None:
    change_index(folder, z="model-00001-of-00003.safetensors")


def break_extra_tensor(folder: Path) -> None:
    change_index(folder, c=None)


def break_duplicate(folder: Path) -> None:
    shard = folder / "model-00001-of-00003.safetensors"
    save_file(load_file(shard) | {"c": TENSORS["c"]}, shard)


def break_traversal(folder: Path) -> None:
    change_index(folder, a="../model-00001-of-00003.safetensors")


def break_index(folder: Path) -> None:
    (folder / INDEX).write_text("{")


def break_two_sets(folder: Path) -> None:
    save_file(TENSORS, folder / SINGLE)


def break_no_index(folder: Path) -> None:
    (folder / INDEX).unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (break_missing, ["a shard is missing", "model-00002-of-00003.safetensors"]),
        (break_truncated, ["truncated", "model-00002-of-00003.safetensors, tensor d"]),
        (break_missing_file, ["a shard is missing", "model-00009-of-00003.safetensors"]),
        (break_lacking_tensor, ["lacks a tensor", "model-00001-of-00003.safetensors, tensor z"]),
        (break_extra_tensor, ["a tensor too many", "model-00002-of-00003.safetensors, tensor c"]),
        (break_duplicate, ["a tensor too many", "model-00001-of-00003.safetensors, tensor c"]),
        (break_traversal, ["points outside", "tensor a", "'../model-00001-of-00003.safetensors'"]),
        (break_index, ["index is unreadable", INDEX]),
        (break_two_sets, ["two sets of weights", SINGLE, INDEX]),
        (break_no_index, ["has no weights", SINGLE, INDEX]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_bad_checkpoint_is_refused(tmp_path: Path, spoil: object, words: list[str]) -> None:
    write(tmp_path / "in", 64)
    assert callable(spoil)
    spoil(tmp_path / "in")
    with pytest.raises(StageError) as error:
        read_checkpoint(tmp_path / "in")
    for word in words:
        assert word in str(error.value)
