"""Reading is strict; writing gives the same bytes for the same tensors and holds one shard."""

import json
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.shard_plan import INDEX, SINGLE
from pipeline.checkpoint.shards import (
    SLAB_ELEMENTS,
    read_checkpoint,
    split_rows,
    write_checkpoint,
)
from pipeline.errors import StageError

pytestmark = pytest.mark.convert

TENSORS = {name: torch.full((4, 4), n).bfloat16() for n, name in enumerate("abcdef")}


def write(folder: Path, shard_bytes: int) -> None:
    folder.mkdir()
    shapes = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
    write_checkpoint(folder, shapes, lambda name, *rows: TENSORS[name][slice(*rows)], shard_bytes)


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


@pytest.mark.parametrize("names", ["abcdef", "fbadce", ["é", "a.b", "Z", 'q"\\', "longer.name"]])
def test_a_file_has_the_bytes_that_the_library_writes(tmp_path: Path, names: list[str]) -> None:
    tensors = {name: torch.randn(40, n + 1).bfloat16() for n, name in enumerate(names)}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    write_checkpoint(tmp_path, shapes, lambda name, *rows: tensors[name][slice(*rows)])
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    assert (tmp_path / SINGLE).read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("shape", [(7, 3), (64,), (1000, 131072), (131072, 5120), (33, 1 << 24)])
def test_slabs_cover_a_tensor_and_are_bounded(shape: tuple[int, ...]) -> None:
    slabs = list(split_rows(shape))
    assert [start for start, _ in slabs] == [0, *(stop for _, stop in slabs[:-1])]
    assert slabs[-1][1] == shape[0]
    assert all(start % 32 == 0 for start, _ in slabs)
    assert all(
        stop - start == 32 or (stop - start) * prod(shape[1:]) <= SLAB_ELEMENTS
        for start, stop in slabs[:-1]
    )


def test_rows_are_read_from_the_file_itself(tmp_path: Path) -> None:
    """Also those of a tensor that an odd number of bytes has moved off its alignment."""
    tensors = {"a": torch.arange(3, dtype=torch.uint8), "b": torch.randn(5, 4)}
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [5, 4], "data_offsets": [3, 83]},
        "c": {"dtype": "F16", "shape": [0, 7], "data_offsets": [83, 83]},
    }
    text = json.dumps(header).encode()
    data = b"".join(bytes(each.reshape(-1).view(torch.uint8).numpy()) for each in tensors.values())
    (tmp_path / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + data)
    checkpoint = read_checkpoint(tmp_path)
    assert torch.equal(checkpoint.read("a"), tensors["a"])
    assert torch.equal(checkpoint.read_rows("b", 1, 4), tensors["b"][1:4])
    assert checkpoint.read("c").shape == (0, 7)


def test_threads_may_read_at_the_same_time(tmp_path: Path) -> None:
    write(tmp_path / "out", 1)
    checkpoint = read_checkpoint(tmp_path / "out")
    with ThreadPoolExecutor(8) as pool:
        for name, found in pool.map(lambda name: (name, checkpoint.read(name)), "abcdef" * 50):
            assert torch.equal(found, TENSORS[name])


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


def break_absolute(folder: Path) -> None:
    change_index(folder, a=str(folder / "model-00001-of-00003.safetensors"))


def break_long_name(folder: Path) -> None:
    change_index(folder, a="a" * 5000 + ".safetensors")


def break_zero_byte(folder: Path) -> None:
    change_index(folder, a="a\0.safetensors")


def break_index_twice(folder: Path) -> None:
    text = (folder / INDEX).read_text()
    (folder / INDEX).write_text(
        text.replace('"a":', '"a": "model-00002-of-00003.safetensors", "a":')
    )


def break_index_depth(folder: Path) -> None:
    (folder / INDEX).write_text("[" * 100_000)


def break_extra_shard(folder: Path) -> None:
    save_file(TENSORS, folder / "model-00004-of-00004.safetensors")


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
        (break_absolute, ["points outside", "tensor a"]),
        (break_long_name, ["points outside", "tensor a"]),
        (break_zero_byte, ["points outside", "tensor a"]),
        (break_index_twice, ["names something twice", f"{INDEX}, tensor a"]),
        (break_index_depth, ["index is unreadable", INDEX]),
        (break_extra_shard, ["a shard too many", "model-00004-of-00004.safetensors"]),
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
