"""Of two GGUF files, what differs is said by key, by tensor and in dequantized values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint.difference import describe
from pipeline.checkpoint.llama_source import import_gguf

pytestmark = pytest.mark.convert

RAMP = np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128)


def write_gguf(path: Path, keys: dict[str, Any], tensors: dict[str, tuple[str, Any]]) -> Path:
    """Write a GGUF with gguf's own writer; a tensor is its type and its bytes or numbers."""
    gguf = import_gguf()
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in keys.items():
        add = {str: writer.add_string, list: writer.add_array, float: writer.add_float32}
        add.get(type(value), writer.add_uint32)(key, value)
    for name, (type_name, values) in tensors.items():
        raw = values.dtype == np.uint8
        dtype = gguf.GGMLQuantizationType[type_name] if raw else None
        writer.add_tensor(name, values, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantize(values: Any, type_name: str) -> tuple[str, Any]:
    gguf = import_gguf()
    return type_name, gguf.quants.quantize(values, gguf.GGMLQuantizationType[type_name])


def describe_ggufs(
    folder: Path,
    sealed: tuple[dict[str, Any], dict[str, tuple[str, Any]]],
    rebuilt: tuple[dict[str, Any], dict[str, tuple[str, Any]]],
) -> list[str]:
    return describe(
        write_gguf(folder / "sealed.gguf", *sealed), write_gguf(folder / "rebuilt.gguf", *rebuilt)
    )


def test_keys_are_told_with_their_values(tmp_path: Path) -> None:
    sealed = {
        "general.name": "Tiny",
        "gone": 1,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
        "llama.rope.freq_base": 0.5,
        "kind": 7,
        "tokenizer.chat_template": "x" * 5000 + "{{ old }}" + "y" * 200,
    }
    rebuilt = {
        "general.name": "Other",
        "tokenizer.ggml.tokens": ["a", "B", "c", "d"],
        "llama.rope.freq_base": 0.25,
        "kind": "7",
        "tokenizer.chat_template": "x" * 5000 + "{{ new }}" + "y" * 200,
        "come": "here",
    }
    assert describe_ggufs(tmp_path, (sealed, {}), (rebuilt, {})) == [
        'key general.name: "Tiny" -> "Other"',
        "key gone: only in the sealed artifact: 1",
        'key tokenizer.ggml.tokens[1]: "b" -> "B"',
        'key tokenizer.ggml.tokens[3]: only in the rebuilt one: "d"',
        "key llama.rope.freq_base: 0.5 -> 0.25",
        'key kind: UINT32 7 -> STRING "7"',
        f"key tokenizer.chat_template: ...{'x' * 17}{{{{ old }}}}{'y' * 54}..."
        f" -> ...{'x' * 17}{{{{ new }}}}{'y' * 54}...",
        'key come: only in the rebuilt one: "here"',
    ]


def test_tensors_that_are_missing_extra_or_of_another_form_come_first(tmp_path: Path) -> None:
    sealed = {
        "a": ("F32", RAMP),
        "b": ("F32", RAMP),
        "c": quantize(RAMP, "Q8_0"),
        "d": ("F32", RAMP),
    }
    rebuilt = {
        "a": ("F32", RAMP * 2),
        "b": ("F32", RAMP.reshape(4, 64)),
        "c": quantize(RAMP, "BF16"),
        "e": ("F16", RAMP.astype(np.float16)),
    }
    assert describe_ggufs(tmp_path, ({}, sealed), ({}, rebuilt)) == [
        "tensor b: F32 [2, 128] -> F32 [4, 64]",
        "tensor c: Q8_0 [2, 128] -> BF16 [2, 128]",
        "tensor d F32 [2, 128]: only in the sealed artifact",
        "tensor e F16 [2, 128]: only in the rebuilt one",
        "tensor a F32 [2, 128]: 256 of 256 values differ, max abs difference 1",
    ]


@pytest.mark.parametrize("type_name", ["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"])
def test_each_plain_type_is_told_in_its_own_values(tmp_path: Path, type_name: str) -> None:
    def make(values: list[int]) -> tuple[str, Any]:
        if type_name == "BF16":
            return quantize(np.array(values, np.float32), "BF16")
        return type_name, np.array(values, f"{type_name[0].lower()}{int(type_name[1:]) // 8}")

    assert describe_ggufs(tmp_path, ({}, {"a": make([1, 2, 3])}), ({}, {"a": make([1, 2, 5])})) == [
        f"tensor a {type_name} [3]: 1 of 3 values differ, max abs difference 2"
    ]


def test_quantized_values_are_compared_as_they_dequantize(tmp_path: Path) -> None:
    """One quantized number, after its block's scale of two bytes, is one larger."""
    type_name, sealed = quantize(RAMP * 127, "Q8_0")
    rebuilt = sealed.copy()
    rebuilt[0, 2 + 9] += 1
    scale = float(sealed[0, :2].copy().view(np.float16)[0])
    assert describe_ggufs(
        tmp_path, ({}, {"a": (type_name, sealed)}), ({}, {"a": (type_name, rebuilt)})
    ) == [
        "tensor a Q8_0 [2, 128]: 1 of 256 dequantized values differ,"
        f" max abs difference {scale:.6g}"
    ]


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS"])
def test_every_common_quantization_is_understood(tmp_path: Path, type_name: str) -> None:
    gguf = import_gguf()
    quantization = gguf.GGMLQuantizationType[type_name]
    _, block_bytes = gguf.GGML_QUANT_SIZES[quantization]
    sealed = np.full((2, block_bytes), 0x11, np.uint8)
    rebuilt = sealed.copy()
    rebuilt[1] = 0x22
    before, after = (gguf.quants.dequantize(each, quantization) for each in (sealed, rebuilt))
    distance = np.abs(before.astype(float) - after)
    assert describe_ggufs(
        tmp_path, ({}, {"a": (type_name, sealed)}), ({}, {"a": (type_name, rebuilt)})
    ) == [
        f"tensor a {type_name} {list(before.shape)}: {(before != after).sum()} of {before.size}"
        f" dequantized values differ, max abs difference {distance.max():.6g}"
    ]


def test_bytes_without_a_value_are_said_to_be_that(tmp_path: Path) -> None:
    """Of a block whose scale is zero, the quantized numbers mean nothing."""
    sealed = np.zeros((1, 34), np.uint8)
    rebuilt = sealed.copy()
    rebuilt[0, 9] = 3
    assert describe_ggufs(
        tmp_path, ({}, {"a": ("Q8_0", sealed)}), ({}, {"a": ("Q8_0", rebuilt)})
    ) == ["tensor a Q8_0 [1, 32]: its bytes differ, and none of its 32 dequantized values"]


def test_a_type_that_gguf_cannot_dequantize_is_told_in_bytes(tmp_path: Path) -> None:
    gguf = import_gguf()
    block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType.Q8_K][1]
    sealed = np.zeros((1, block_bytes), np.uint8)
    rebuilt = sealed.copy()
    rebuilt[0, 9:11] = 3
    assert describe_ggufs(
        tmp_path, ({}, {"a": ("Q8_K", sealed)}), ({}, {"a": ("Q8_K", rebuilt)})
    ) == [f"tensor a Q8_K [1, 256]: 2 of {block_bytes} bytes differ, max abs difference 3"]


def test_another_order_is_told_when_nothing_else_differs(tmp_path: Path) -> None:
    keys = {"one": 1, "two": 2}
    tensors = {"a": ("F32", RAMP), "b": ("F32", RAMP * 2)}
    turned_keys = dict(reversed(keys.items()))
    turned_tensors = dict(reversed(tensors.items()))
    words = "keys and tensors are equal; what differs is"
    assert describe_ggufs(tmp_path, (keys, tensors), (turned_keys, tensors)) == [
        f"{words} the order of keys"
    ]
    assert describe_ggufs(tmp_path, (keys, tensors), (turned_keys, turned_tensors)) == [
        f"{words} the order of keys and the order of tensors"
    ]


def test_another_padding_is_told_when_nothing_else_differs(tmp_path: Path) -> None:
    sealed = write_gguf(tmp_path / "sealed.gguf", {}, {"a": ("F32", RAMP)})
    rebuilt = tmp_path / "rebuilt.gguf"
    whole = sealed.read_bytes()
    begin = len(whole) - RAMP.nbytes
    assert whole[begin - 1] == 0
    rebuilt.write_bytes(whole[: begin - 1] + b"\1" + whole[begin:])
    assert describe(sealed, rebuilt) == [
        "keys and tensors are equal; only the padding's bytes differ"
    ]
    # The offset of the one tensor is what the header ends in.
    end = whole.index(b"\1\0\0\0\0\0\0\0a") + 9 + 4 + 8 + 8 + 4
    moved = whole[:end] + (32).to_bytes(8, "little") + whole[end + 8 : begin] + bytes(32)
    rebuilt.write_bytes(moved + whole[begin:])
    assert describe(sealed, rebuilt) == [
        "keys and tensors are equal; what differs is where the tensors lie (alignment or padding)"
    ]
    rebuilt.write_bytes(whole)
    assert describe(sealed, rebuilt) == ["no byte differs"]


def test_another_alignment_is_a_key(tmp_path: Path) -> None:
    tensors = {"a": ("F32", RAMP), "b": ("F32", RAMP)}
    sealed = write_gguf(tmp_path / "sealed.gguf", {"general.alignment": 32}, tensors)
    rebuilt = write_gguf(tmp_path / "rebuilt.gguf", {"general.alignment": 16}, tensors)
    assert describe(sealed, rebuilt) == ["key general.alignment: 32 -> 16"]


def test_a_file_cut_short_is_told_by_its_bytes(tmp_path: Path) -> None:
    sealed = write_gguf(tmp_path / "sealed.gguf", {"list": [1, 2, 3]}, {"a": ("F32", RAMP)})
    whole = sealed.read_bytes()
    rebuilt = tmp_path / "rebuilt.gguf"
    for length in range(0, len(whole), 7):
        rebuilt.write_bytes(whole[:length])
        found = describe(sealed, rebuilt)
        assert len(found) == 2
        assert found[0].startswith("no sound GGUF in the rebuilt one: the file cannot be followed")
        assert "Traceback" not in found[0]


def test_an_array_of_impossible_length_ends_at_once(tmp_path: Path) -> None:
    sealed = write_gguf(tmp_path / "sealed.gguf", {"list": [1, 2, 3]}, {})
    whole = sealed.read_bytes()
    rebuilt = tmp_path / "rebuilt.gguf"
    # After the key stand its type (array), that of its items, and their number.
    begin = whole.index(b"list") + 4 + 4 + 4
    assert whole[begin : begin + 8] == (3).to_bytes(8, "little")
    rebuilt.write_bytes(whole[:begin] + (1 << 30).to_bytes(8, "little") + whole[begin + 8 :])
    assert describe(sealed, rebuilt)[0].startswith(
        "no sound GGUF in the rebuilt one: the file cannot be followed (it ends at byte "
    )
