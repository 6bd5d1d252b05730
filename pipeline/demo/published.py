"""A trained text model -> a checkpoint as Mistral publishes Devstral Small 2.

FP8 E4M3 weights in the text model's projections with one scale per tensor (0-d BF16
`weight_scale_inv`, by which the weight is multiplied) and a 0-d `activation_scale`; everything
else in BF16; names of the published layout; two shards and their index. The Pixtral tower and the
projector are real modules with random weights: the demonstration never looks at pictures.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from pipeline.checkpoint.safetensors_file import write_safetensors
from pipeline.demo.tokenizer import write_tokenizer

SHARD_COUNT = 2
FP8_MAX = torch.finfo(torch.float8_e4m3fn).max
# Nothing here runs in FP8 arithmetic, so that no calibration was done; readers drop this scale.
ACTIVATION_SCALE = 1.0
_TEXT_PREFIX = "language_model."
# The model's own module tree -> the published names.
_PUBLISHED_PREFIXES = {
    "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return (float8_e4m3fn weight, 0-d bfloat16 scale); weight is nearly their product."""
    scale = (weight.abs().max().float() / FP8_MAX).bfloat16()
    scaled = (weight.float() / scale.float()).clamp(-FP8_MAX, FP8_MAX)
    return scaled.to(torch.float8_e4m3fn), scale


def dequantize(quantized: Tensor, scale: Tensor) -> Tensor:
    """Return the bfloat16 weight that every reader of the checkpoint works with."""
    return (quantized.float() * scale.float()).bfloat16()


def is_quantized(name: str) -> bool:
    """Tell whether the text model's parameter of that name is stored in FP8."""
    return name.endswith("_proj.weight")


def publish_text(model: nn.Module) -> dict[str, Tensor]:
    """Return the text model's tensors as they are stored, by published name."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.state_dict().items():
        published = f"{_TEXT_PREFIX}{name}"
        if not is_quantized(name):
            tensors[published] = parameter.bfloat16()
            continue
        tensors[published], tensors[_name_scale(published)] = quantize(parameter)
        activation = published.removesuffix("weight") + "activation_scale"
        tensors[activation] = torch.tensor(ACTIVATION_SCALE, dtype=torch.bfloat16)
    return tensors


@torch.no_grad()
def load_published(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the model the values that a reader of the stored tensors will see."""
    for name, parameter in model.named_parameters():
        stored = tensors[f"{_TEXT_PREFIX}{name}"]
        if is_quantized(name):
            stored = dequantize(stored, tensors[_name_scale(f"{_TEXT_PREFIX}{name}")])
        parameter.copy_(stored)


def _name_scale(published: str) -> str:
    return published.removesuffix("weight") + "weight_scale_inv"


def write_checkpoint(
    text: Mapping[str, Tensor], config: Mapping[str, Any], *, seed: int, out: Path
) -> None:
    """Write the published text tensors, with vision parts from `seed`, and all other files."""
    _write_shards({**text, **_make_vision(config, seed)}, out)
    _write_json(out / "config.json", config)
    generation = {
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 11,
        "transformers_version": config["transformers_version"],
    }
    _write_json(out / "generation_config.json", generation)
    write_tokenizer(out)


def _make_vision(config: Mapping[str, Any], seed: int) -> dict[str, Tensor]:
    """Return the vision tower and the projector of the real model class, random."""
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    torch.manual_seed(seed)
    whole = Mistral3ForConditionalGeneration(Mistral3Config.from_dict(plain))
    return {
        published + name.removeprefix(prefix): tensor.detach().bfloat16()
        for name, tensor in whole.state_dict().items()
        for prefix, published in _PUBLISHED_PREFIXES.items()
        if name.startswith(prefix)
    }


def _write_shards(tensors: Mapping[str, Tensor], out: Path) -> None:
    """Write the tensors by name into shards of about equal size, and the index."""
    names = sorted(tensors)
    total_bytes = sum(tensor.nbytes for tensor in tensors.values())
    shards: list[dict[str, Tensor]] = [{} for _ in range(SHARD_COUNT)]
    written_bytes = 0
    for name in names:
        shards[min(written_bytes * SHARD_COUNT // total_bytes, SHARD_COUNT - 1)][name] = tensors[
            name
        ].contiguous()
        written_bytes += tensors[name].nbytes
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{SHARD_COUNT:05d}.safetensors"
        write_safetensors(shard, out / file)
        weight_map |= dict.fromkeys(shard, file)
    metadata = {
        "total_parameters": sum(
            tensor.numel() for name, tensor in tensors.items() if not name.endswith("scale_inv")
        ),
        "total_size": total_bytes,
    }
    index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(out / "model.safetensors.index.json", index)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
