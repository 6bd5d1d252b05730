"""config.json, and the safetensors' headers where they are here -> which tensors are kept.

Of a published checkpoint the text model's weights are kept, the scales of FP8 weights go into them,
and vision is dropped. From the config alone all of it is counted for FP8 as transformers writes it
and for the vision tower that Mistral publishes (Pixtral); with the checkpoint, by its headers.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pipeline.estimate.base_config import BaseConfig
from pipeline.estimate.gguf_size import list_tensors
from pipeline.estimate.shape import Shape

_TEXT_LAYER_PROJECTIONS = 7
_VISION_PREFIXES = (
    "vision_tower.",
    "model.vision_tower.",
    "multi_modal_projector.",
    "model.multi_modal_projector.",
)
_HEADER_MAX_BYTES = 100 << 20


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Tensors and parameters of the base that are kept, and of what is dropped on purpose.

    `scales` counts the scales that dequantization uses up or leaves out. None: not known before
    the checkpoint is here. `base_bytes` are those of all its tensors.
    """

    kept_tensors: int
    kept_parameters: int
    dropped_tensors: int | None
    dropped_parameters: int | None
    scales: int | None
    base_bytes: int | None


def count_weights(base: BaseConfig, shape: Shape) -> Weights:
    """Return what becomes of the base's tensors."""
    # Llama 3's frequencies are made for the GGUF.
    made = {"rope_freqs.weight"}
    tensors = {name: size for name, size in list_tensors(shape).items() if name not in made}
    found = _count_headers(base.directory) if base.directory is not None else None
    dropped, scales, base_bytes = found or _count_from_config(base.config, shape)
    return Weights(
        kept_tensors=len(tensors),
        kept_parameters=sum(prod(size) for size in tensors.values()),
        dropped_tensors=None if dropped is None else dropped[0],
        dropped_parameters=None if dropped is None else dropped[1],
        scales=scales,
        base_bytes=base_bytes,
    )


_Counts = tuple[tuple[int, int] | None, int | None, int | None]


def _count_headers(directory: Path) -> _Counts | None:
    """Return dropped tensors and parameters, scales, and bytes; None unless every shard is here."""
    dropped = parameters = scales = size_bytes = 0
    try:
        for name, entry in _read_entries(directory):
            size = prod(entry["shape"])
            size_bytes += entry["data_offsets"][1] - entry["data_offsets"][0]
            if name.startswith(_VISION_PREFIXES):
                dropped, parameters = dropped + 1, parameters + size
            elif "scale" in name.rpartition(".")[2]:
                scales += 1
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return ((dropped, parameters), scales, size_bytes) if size_bytes else None


def _read_entries(directory: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and header of each tensor of the shards that the index names, or of the one."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = [directory / name for name in sorted(set(weight_map.values()))]
    else:
        shards = sorted(directory.glob("model*.safetensors"))
    for shard in shards:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _HEADER_MAX_BYTES:
                raise ValueError("no safetensors file")
            header = json.loads(file.read(length))
        yield from ((name, each) for name, each in header.items() if name != "__metadata__")


def _count_from_config(config: Mapping[str, Any], shape: Shape) -> _Counts:
    dropped = _count_vision(config)
    quantization = config.get("quantization_config")
    projections, wide = shape.count_projections(), shape.count_parameters()
    wide -= projections
    vision_bytes = None if dropped is None else 2 * dropped[1]
    if quantization is None:
        each = 4 if config.get("dtype", config.get("torch_dtype")) == "float32" else 2
        total = None if vision_bytes is None else each * (projections + wide) + vision_bytes
        return dropped, 0, total
    if quantization.get("quant_method") != "fp8" or quantization.get("weight_block_size"):
        return dropped, None, None
    activations = quantization.get("activation_scheme") == "static"
    scales = shape.layers * _TEXT_LAYER_PROJECTIONS * (2 if activations else 1)
    total = None if vision_bytes is None else projections + 2 * (wide + scales) + vision_bytes
    return dropped, scales, total


def _count_vision(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return tensors and parameters of a Pixtral tower and Mistral's projector; zero without one,
    None for another form."""
    vision = config.get("vision_config")
    if not vision:
        return 0, 0
    text = config.get("text_config") or {}
    try:
        if vision["model_type"] != "pixtral" or config["model_type"] != "mistral3":
            return None
        hidden, ffn = int(vision["hidden_size"]), int(vision["intermediate_size"])
        layers, channels = int(vision["num_hidden_layers"]), int(vision["num_channels"])
        heads = int(vision["num_attention_heads"]) * int(
            vision.get("head_dim") or hidden // int(vision["num_attention_heads"])
        )
        merged = hidden * int(config["spatial_merge_size"]) ** 2
        width = int(text["hidden_size"])
        # Queries, keys, values and output; gate, up and down; two norms.
        layer = 4 * hidden * heads + 3 * hidden * ffn + 2 * hidden
        tower = layers * layer + hidden * channels * int(vision["patch_size"]) ** 2 + hidden
    except (KeyError, TypeError, ValueError):
        return None
    biases = 2 if config.get("multimodal_projector_bias") else 0
    projector = hidden + merged * hidden + hidden * width + width * width + biases * width
    return 9 * layers + 2 + 4 + biases, tower + projector
