"""Of two safetensors files, what differs is said tensor by tensor, in exact numbers."""

import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.checkpoint.difference import describe
from pipeline.checkpoint.safetensors_header import DTYPE_BYTES
from pipeline.checkpoint.tensor_difference import ENCODINGS

pytestmark = pytest.mark.convert

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Tensors = dict[str, torch.Tensor]


def describe_tensors(
    folder: Path, sealed: Tensors, rebuilt: Tensors, **metadata: dict[str, str] | None
) -> list[str]:
    """Return the account of two safetensors files, `old` and `new` their metadata."""
    paths = folder / "sealed.safetensors", folder / "rebuilt.safetensors"
    save_file(sealed, paths[0], metadata=metadata.get("old"))
    save_file(rebuilt, paths[1], metadata=metadata.get("new"))
    return describe(*paths)


def test_an_adapter_says_how_many_values_differ_and_how_far(tmp_path: Path) -> None:
    name = "base.layers.0.q.weight"
    sealed = torch.ones(64, 256, dtype=torch.bfloat16)
    rebuilt = sealed.clone()
    rebuilt[3, :12] += 0.0078125
    found = describe_tensors(tmp_path, {name: sealed}, {name: rebuilt})
    assert found == [
        "tensor base.layers.0.q.weight BF16 [64, 256]:"
        " 12 of 16,384 values differ, max abs difference 0.0078125"
    ]


def test_every_dtype_of_the_format_is_compared() -> None:
    assert TORCH_DTYPES.keys() == ENCODINGS.keys() == DTYPE_BYTES.keys()


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_each_dtype_is_told_in_its_own_values(tmp_path: Path, dtype: str) -> None:
    sealed = torch.tensor([0, 1, 1, 1], dtype=TORCH_DTYPES[dtype])
    rebuilt = torch.tensor([0, 1, 0, 1], dtype=TORCH_DTYPES[dtype])
    assert describe_tensors(tmp_path, {"a": sealed}, {"a": rebuilt}) == [
        f"tensor a {dtype} [4]: 1 of 4 values differ, max abs difference 1"
    ]


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_every_byte_of_fp8_is_the_number_that_torch_reads(dtype: str) -> None:
    codes = torch.arange(256).to(torch.uint8)
    expected = codes.view(TORCH_DTYPES[dtype]).double().numpy()
    found = ENCODINGS[dtype].decode(codes.numpy().reshape(-1, 1)).astype(np.float64).ravel()
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


def test_integers_are_exact_beyond_what_a_float_holds(tmp_path: Path) -> None:
    sealed = torch.tensor([2**62, -(2**63)])
    rebuilt = torch.tensor([2**62 + 1, -(2**63)])
    assert describe_tensors(tmp_path, {"a": sealed}, {"a": rebuilt}) == [
        "tensor a I64 [2]: 1 of 2 values differ, max abs difference 1"
    ]
    rebuilt[1] = 2**63 - 1
    assert describe_tensors(tmp_path, {"a": sealed}, {"a": rebuilt}) == [
        "tensor a I64 [2]: 2 of 2 values differ, max abs difference 18,446,744,073,709,551,615"
    ]


def test_nan_infinity_and_the_sign_of_zero_are_said(tmp_path: Path) -> None:
    sealed = torch.tensor([math.nan, math.nan, 1.0, 0.0, 2.0, 5.0])
    rebuilt = torch.tensor([math.nan, 1.0, math.nan, -0.0, 2.5, 5.0])
    assert describe_tensors(tmp_path, {"a": sealed}, {"a": rebuilt}) == [
        "tensor a F32 [6]: 4 of 6 values differ, max abs difference 0.5;"
        " 2 NaN on one side; 1 zero of other sign"
    ]
    rebuilt[5] = math.inf
    assert "max abs difference inf" in describe_tensors(tmp_path, {"a": sealed}, {"a": rebuilt})[0]


@pytest.mark.parametrize(
    ("dtype", "sealed", "rebuilt"),
    [("F8_E5M2", 0x7D, 0x7E), ("F8_E4M3", 0x7F, 0xFF), ("BF16", 0x7FC0, 0x7F81)],
)
def test_a_nan_of_other_bits_is_no_equal_file(
    tmp_path: Path, dtype: str, sealed: int, rebuilt: int
) -> None:
    integer = torch.uint16 if dtype == "BF16" else torch.uint8
    tensors = [
        {"a": torch.tensor([bits], dtype=integer).view(TORCH_DTYPES[dtype])}
        for bits in (sealed, rebuilt)
    ]
    assert describe_tensors(tmp_path, *tensors) == [
        f"tensor a {dtype} [1]: 1 of 1 values differ; 1 NaN of other bits"
    ]


def test_tensors_that_are_missing_extra_or_of_another_form_come_first(tmp_path: Path) -> None:
    sealed = {"a": torch.zeros(2), "b": torch.zeros(4, 2), "c": torch.zeros(3), "d": torch.ones(1)}
    rebuilt = {
        "a": torch.ones(2),
        "b": torch.zeros(2, 4),
        "c": torch.zeros(3, dtype=torch.float16),
        "e": torch.tensor(1.0),
    }
    metadata: Any = {"old": {"format": "pt", "made by": "x"}, "new": {"format": "np"}}
    found = describe_tensors(tmp_path, sealed, rebuilt, **metadata)
    assert sorted(found[:2]) == [
        '__metadata__.format: "pt" -> "np"',
        '__metadata__["made by"]: only in the sealed artifact: "x"',
    ]
    assert found[2:] == [
        "tensor b: F32 [4, 2] -> F32 [2, 4]",
        "tensor c: F32 [3] -> F16 [3]",
        "tensor d F32 [1]: only in the sealed artifact",
        "tensor e F32 []: only in the rebuilt one",
        "tensor a F32 [2]: 2 of 2 values differ, max abs difference 1",
    ]


def test_of_many_tensors_twenty_are_told(tmp_path: Path) -> None:
    sealed = {f"t{number:02}": torch.zeros(1) for number in range(25)}
    rebuilt = {name: torch.ones(1) for name in sealed}
    found = describe_tensors(tmp_path, sealed, rebuilt)
    assert len(found) == 21
    assert found[19:] == [
        "tensor t19 F32 [1]: 1 of 1 values differ, max abs difference 1",
        "... and 5 more",
    ]


def write_safetensors_header(path: Path, header: dict[str, Any], data: bytes, spaces: int) -> None:
    text = json.dumps(header).encode() + b" " * spaces
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_a_header_of_another_layout_is_told_as_that(tmp_path: Path) -> None:
    one = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    two = {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}
    sealed, rebuilt = tmp_path / "sealed.safetensors", tmp_path / "rebuilt.safetensors"
    write_safetensors_header(sealed, {"a": one, "b": two}, b"xy", 3)
    words = "tensors and metadata are equal; only the header's layout (order, padding) differs"
    write_safetensors_header(rebuilt, {"a": one, "b": two}, b"xy", 11)
    assert describe(sealed, rebuilt) == [words]
    write_safetensors_header(rebuilt, {"a": two, "b": one}, b"yx", 3)
    assert describe(sealed, rebuilt) == [words]
    write_safetensors_header(rebuilt, {"a": one, "b": two}, b"xy", 3)
    assert describe(sealed, rebuilt) == ["no byte differs"]


def test_a_truncated_file_is_told_by_its_bytes(tmp_path: Path) -> None:
    sealed, rebuilt = tmp_path / "sealed.safetensors", tmp_path / "rebuilt.safetensors"
    save_file({"a": torch.zeros(4)}, sealed)
    size_bytes = sealed.stat().st_size
    rebuilt.write_bytes(sealed.read_bytes()[:-1])
    assert describe(sealed, rebuilt) == [
        "no sound safetensors file in the rebuilt one: a shard is truncated"
        " (its header declares 16 bytes of tensors, and 15 are there)",
        f"{size_bytes} bytes -> {size_bytes - 1} bytes; the first {size_bytes - 1} bytes are equal",
    ]


def test_a_tensor_larger_than_the_memory_used_is_compared(tmp_path: Path) -> None:
    """A sparse file stands in for a checkpoint: 512 MB a side, less than a tenth of it at once."""
    count = 1 << 27
    header = {"a": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}
    paths = tmp_path / "sealed.safetensors", tmp_path / "rebuilt.safetensors"
    for path in paths:
        write_safetensors_header(path, header, b"", 0)
        begin = path.stat().st_size
        with path.open("r+b") as file:
            file.truncate(begin + 4 * count)
    with paths[1].open("r+b") as file:
        for place in (1, count // 2, count - 1):
            file.seek(begin + 4 * place)
            file.write(np.float32(place % 7 + 1).tobytes())
    tracemalloc.start()
    found = describe(*paths)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    greatest = max(place % 7 + 1 for place in (1, count // 2, count - 1))
    assert found == [
        f"tensor a F32 [{count}]: 3 of 134,217,728 values differ, max abs difference {greatest}"
    ]
    assert peak_bytes < 50_000_000
