"""A published checkpoint and an adapter with the flagship's layer shapes and random weights.

FP8 with one scale per tensor, as Mistral publishes it; the demonstration's small vocabulary, since
embeddings would only add more of the same.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.safetensors_file import write_safetensors
from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.demo.shape import make_config
from pipeline.demo.tokenizer import write_tokenizer

FLAGSHIP = {
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
FLAGSHIP_PARAMETERS = 23_572_403_200

_TILE = 1 << 22
_PREFIX = "language_model."


def write_base(folder: Path, layers: int, sizes: dict[str, int]) -> int:
    """Write the checkpoint; return its parameters."""
    folder.mkdir(parents=True)
    config = make_config(256)
    config["text_config"] |= sizes | {"num_hidden_layers": layers}
    shapes = list_tensor_shapes(config["text_config"] | {"tie_word_embeddings": False})
    tensors: dict[str, torch.Tensor] = {}
    for name, weight in _make_weights(shapes):
        if "_proj." in name:
            scale = (weight.abs().max().float() / 448).bfloat16()
            tensors[f"{_PREFIX}{name}_scale_inv"] = scale
            weight = (weight / scale.float()).to(torch.float8_e4m3fn)
        tensors[f"{_PREFIX}{name}"] = weight if "_proj." in name else weight.bfloat16()
    write_safetensors(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_tokenizer(folder)
    (folder / "tekken.json").unlink(missing_ok=True)
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _make_weights(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield normal weights, the same tile over and over at a different start for each tensor."""
    generator = torch.Generator().manual_seed(1)
    tile = torch.randn(_TILE, generator=generator) * 0.02
    for number, (name, shape) in enumerate(shapes.items()):
        count = torch.Size(shape).numel()
        repeated = tile.roll(-977 * number).repeat(-(-count // _TILE))[:count]
        yield name, repeated.reshape(shape) + (len(shape) == 1)


def write_adapter(folder: Path, layers: int, sizes: dict[str, int], rank: int = 16) -> None:
    """Write a LoRA adapter for every projection."""
    folder.mkdir(parents=True)
    config = make_config(256)["text_config"] | sizes | {"num_hidden_layers": layers}
    generator = torch.Generator().manual_seed(2)
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in list_tensor_shapes(config | {"tie_word_embeddings": False}).items():
        if "_proj." in name:
            module = f"base_model.model.{name.removesuffix('.weight')}"
            tensors[f"{module}.lora_A.weight"] = _draw((rank, shape[1]), generator)
            tensors[f"{module}.lora_B.weight"] = _draw((shape[0], rank), generator)
    write_safetensors(tensors, folder / "adapter_model.safetensors")
    told: dict[str, Any] = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(told), encoding="utf-8")


def _draw(shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * 0.02
