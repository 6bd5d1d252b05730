"""The final weights: equal to the formula, the same in every slab, in bounded memory."""

import json
import os
import random
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from pipeline.checkpoint.names import plan_names
from pipeline.checkpoint.safetensors_header import make_header
from pipeline.checkpoint.shards import read_checkpoint, split_rows
from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.checkpoint.weights import BASE_DIGEST, open_weights, write_base_digest
from pipeline.demo.shape import make_config
from pipeline.errors import StageError
from tests.checkpoint.tiny_base import (
    MISTRAL_PREFIX,
    TRANSFORMERS_PREFIX,
    make_base_tensors,
    write_base,
)

pytestmark = pytest.mark.convert

QUERY = "model.layers.1.self_attn.q_proj.weight"
SHARD = "model.safetensors"
SPOILED = ("base/*.safetensors", "base/*config.json", "base/*.index.json", "adapter/*")

COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"},
            "input_activations": {"num_bits": 8, "type": "float", "dynamic": True},
        }
    },
    "ignore": ["lm_head"],
}


def widen(scale: torch.Tensor, shape: tuple[int, ...], block: tuple[int, int]) -> torch.Tensor:
    rows, columns = block
    return (
        scale.float()
        .repeat_interleave(rows, 0)
        .repeat_interleave(columns, 1)[: shape[0], : shape[1]]
    )


def write_quantized(
    folder: Path, quantization: dict[str, Any], suffix: str, block: tuple[int, int] | None
) -> dict[str, torch.Tensor]:
    """Write a base with scales of that name and form; return what its weights must be."""
    chance = torch.Generator().manual_seed(1)
    tensors, expected = {}, {}
    for name, tensor in make_base_tensors().items():
        if name.endswith("activation_scale"):
            tensors[name.replace("activation_scale", "input_scale")] = tensor
        elif tensor.dtype == torch.float8_e4m3fn:
            rows, columns = block or (1, tensor.shape[1])
            grid = -(-tensor.shape[0] // rows), -(-tensor.shape[1] // columns)
            scale = torch.rand(grid, generator=chance) * 1e-3 + 1e-4
            tensors[name], tensors[name.removesuffix("weight") + suffix] = tensor, scale
            expected[name] = (
                tensor.float() * widen(scale, tuple(tensor.shape), (rows, columns))
            ).bfloat16()
        elif "scale" not in name:
            tensors[name], expected[name] = tensor, tensor
    folder.mkdir()
    save_file(tensors, folder / SHARD)
    config = make_config(256) | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    return {
        name.replace(MISTRAL_PREFIX, "model.").replace("language_model.lm", "lm"): tensor
        for name, tensor in expected.items()
        if name.startswith("language_model.")
    }


@pytest.mark.parametrize(
    ("quantization", "suffix", "block"),
    [
        (COMPRESSED, "weight_scale", None),
        ({"quant_method": "fp8", "weight_block_size": None}, "qscale_weight", None),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "weight_scale_inv", (128, 128)),
        ({"quant_method": "fp8", "weight_block_size": [96, 80]}, "weight_scale_inv", (96, 80)),
    ],
    ids=["compressed-tensors", "channels", "blocks", "odd blocks"],
)
def test_every_form_of_scale_is_read(
    tmp_path: Path, quantization: dict[str, Any], suffix: str, block: tuple[int, int] | None
) -> None:
    expected = write_quantized(tmp_path / "base", quantization, suffix, block)
    weights = open_weights(tmp_path / "base")
    assert set(weights.shapes) == set(expected)
    for name, (rows, *_) in weights.shapes.items():
        slabs = [weights.read_rows(name, n, min(n + 32, rows)) for n in range(0, rows, 32)]
        assert torch.equal(torch.cat(slabs), expected[name]), name


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "quant_method gptq"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized"}, "quant_method"),
        (COMPRESSED | {"format": "int-quantized"}, "format int-quantized"),
        (
            COMPRESSED | {"config_groups": {"group_0": {"weights": {"num_bits": 4}}}},
            "'num_bits': 4",
        ),
        (COMPRESSED | {"config_groups": {"group_0": 3}}, "without weights"),
        (COMPRESSED | {"config_groups": {}}, "0 kinds"),
        ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "blocks of [0, 128]"),
        ({"quant_method": "fp8", "weight_block_size": 128}, "blocks of 128"),
        ({}, "no quant_method"),
        ([], "no quant_method"),
    ],
    ids=str,
)
def test_another_quantization_is_refused(
    tmp_path: Path, quantization: dict[str, Any], words: str
) -> None:
    write_base(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"quantization_config": quantization})
    )
    with pytest.raises(StageError, match="quantized in a way") as error:
        open_weights(tmp_path)
    assert words in error.value.on


def write_adapter(folder: Path, module: str, shape: tuple[int, int]) -> None:
    folder.mkdir()
    chance = torch.Generator().manual_seed(2)
    tensors = {
        f"base_model.model.{module}.lora_A.weight": torch.randn(4, shape[1], generator=chance),
        f"base_model.model.{module}.lora_B.weight": torch.randn(shape[0], 4, generator=chance),
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `base` and an `adapter` for it."""
    root = tmp_path_factory.mktemp("weights")
    write_base(root / "base")
    write_adapter(root / "adapter", QUERY.removesuffix(".weight"), (256, 256))
    return root


def test_threads_read_what_one_thread_reads(root: Path) -> None:
    weights = open_weights(root / "base", root / "adapter")
    slabs = [
        (name, start, min(start + 32, shape[0]))
        for name, shape in weights.shapes.items()
        for start in range(0, shape[0], 32)
    ]
    alone = [weights.read_rows(*slab).clone() for slab in slabs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda slab: weights.read_rows(*slab), slabs * 3))
    assert all(torch.equal(*pair) for pair in zip(together, alone * 3, strict=True))


@given(start=st.integers(0, 7), rows=st.integers(1, 256))
def test_the_bytes_do_not_depend_on_the_slab(root: Path, start: int, rows: int) -> None:
    weights = open_weights(root / "base", root / "adapter")
    start, stop = 32 * start, min(32 * start + rows, 256)
    whole = weights.read_rows(QUERY, 0, 256)
    assert torch.equal(weights.read_rows(QUERY, start, stop), whole[start:stop])


@pytest.mark.parametrize("prefix", [MISTRAL_PREFIX, TRANSFORMERS_PREFIX])
def test_an_adapter_of_another_base_is_refused_by_digest(
    root: Path, tmp_path: Path, prefix: str
) -> None:
    shutil.copytree(root / "adapter", tmp_path / "adapter")
    write_base(tmp_path / "base", prefix, shards=1)
    write_base_digest(tmp_path / "base", tmp_path / "adapter")
    open_weights(root / "base", tmp_path / "adapter")  # the same weights in another layout
    shard = next((tmp_path / "base").glob("*.safetensors"))
    tensors = load_file(shard)
    tensors[f"{prefix}norm.weight"][7] += 1
    save_file(tensors, shard)
    with pytest.raises(StageError, match="cannot be merged") as error:
        open_weights(tmp_path / "base", tmp_path / "adapter")
    assert error.value.on.startswith(BASE_DIGEST)


def read_anonymous_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("RssAnon:")[2].split()[0])


def write_hole(folder: Path, config: dict[str, Any]) -> int:
    """Write a base of zeros that take no room on the disk, FP8 with scales; return its bytes."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in list_tensor_shapes(config).items():
        tensors[name] = ("F8_E4M3" if "_proj" in name else "BF16", shape)
        if "_proj" in name:
            tensors[f"{name}_scale"] = ("BF16", ())
    header = make_header(tensors)
    offsets = json.loads(header[8:])
    with (folder / SHARD).open("wb") as file:
        file.write(header)
        for name in tensors:
            if name.endswith("scale"):
                file.seek(len(header) + offsets[name]["data_offsets"][0])
                file.write(b"\x80\x3f")
        size_bytes: int = max(offsets[name]["data_offsets"][1] for name in tensors)
        file.truncate(len(header) + size_bytes)
    return size_bytes


def test_memory_is_bounded_by_the_slab(tmp_path: Path) -> None:
    sizes = {"intermediate_size": 1 << 17, "num_hidden_layers": 4, "tie_word_embeddings": True}
    size_bytes = write_hole(tmp_path / "base", make_config(256)["text_config"] | sizes)
    assert size_bytes > 3 << 27
    write_adapter(tmp_path / "adapter", "model.layers.0.mlp.up_proj", (1 << 17, 256))
    weights = open_weights(tmp_path / "base", tmp_path / "adapter")
    before, largest = read_anonymous_bytes(), 0
    for name, shape in weights.shapes.items():
        for start, stop in split_rows(shape):
            weights.read_rows(name, start, stop)
            largest = max(largest, read_anonymous_bytes())
    assert largest - before < 128 << 20


# Devstral-Small-2-24B-Instruct-2512, its text_config as far as it gives sizes.
FLAGSHIP = {
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "model_type": "ministral3",
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "vocab_size": 131072,
}


def test_the_flagship_has_its_tensors_and_parameters() -> None:
    shapes = list_tensor_shapes(FLAGSHIP | {"tie_word_embeddings": False})
    assert len(shapes) == 363
    assert sum(prod(shape) for shape in shapes.values()) == 23_572_403_200


def test_the_flagship_is_found_in_a_checkpoint_of_its_layout(tmp_path: Path) -> None:
    """1,145 tensors of its names, types and shapes, and a file that is a hole."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, shape in list_tensor_shapes(FLAGSHIP | {"tie_word_embeddings": False}).items():
        published = f"language_model.{name}"
        tensors[published] = ("F8_E4M3" if "_proj" in name else "BF16", shape)
        if "_proj" in name:
            tensors[f"{published}_scale_inv"] = ("BF16", ())
            tensors[published.replace("weight", "activation_scale")] = ("BF16", ())
    tensors |= {f"vision_tower.part_{n}.weight": ("BF16", (1024,)) for n in range(218)}
    tensors |= {f"multi_modal_projector.part_{n}.weight": ("BF16", (1024,)) for n in range(4)}
    assert len(tensors) == 1145
    header = make_header(tensors)
    offsets = json.loads(header[8:])
    with (tmp_path / SHARD).open("wb") as file:
        file.write(header)
        file.truncate(
            len(header)
            + max(each["data_offsets"][1] for name, each in offsets.items() if name in tensors)
        )
    config = make_config(256)
    config["text_config"] |= FLAGSHIP
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = plan_names(read_checkpoint(tmp_path).entries)
    assert str(found) == (
        "1145 tensors: 363 weights, 280 scales used by them, 502 dropped on purpose"
    )
    with pytest.raises(StageError, match="scale that cannot be"):  # they are zeros
        open_weights(tmp_path)


def spoil_bytes(path: Path, chance: random.Random) -> None:
    """Change, cut out or put in a few bytes, near the beginning above all."""
    data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(min(len(data), chance.choice([16, 3000, 1 << 30])))
        if (kind := chance.random()) < 0.6:
            data[at] = chance.randrange(256)
        elif kind < 0.8:
            del data[at : at + chance.randint(1, 9)]
        else:
            data[at:at] = chance.randbytes(chance.randint(1, 9))
        data = data or bytearray(b" ")
    path.write_bytes(data)


def spoil_value(path: Path, chance: random.Random) -> None:
    """Put something odd somewhere into a JSON file."""
    value = json.loads(path.read_text())
    place = value
    while chance.random() < 0.7 and (
        inner := [each for each in place.values() if isinstance(each, dict) and each]
    ):
        place = chance.choice(inner)
    odd = [None, True, -1, 0, 3, 1 << 70, 0.5, "", "a/../b", "\ud800", [], [1], {}, {"a": 1}]
    place[chance.choice([*place])] = chance.choice(odd)
    path.write_text(json.dumps(value))


@settings(max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_checkpoint_is_read_or_refused(root: Path, seed: int) -> None:
    """Shards, index, configs or adapter: nothing but a StageError is raised."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("base", "adapter"):
            shutil.copytree(root / part, folder / part, copy_function=os.link)
        path = chance.choice([each for pattern in SPOILED for each in sorted(folder.glob(pattern))])
        copy = path.read_bytes()
        path.unlink()
        path.write_bytes(copy)
        spoil = spoil_value if path.suffix == ".json" and chance.random() < 0.6 else spoil_bytes
        spoil(path, chance)
        try:
            weights = open_weights(folder / "base", folder / "adapter")
            for tensor, (rows, *_) in weights.shapes.items():
                weights.read_rows(tensor, 0, min(rows, 32))
        except StageError as error:
            assert error.on
            assert str(error)
