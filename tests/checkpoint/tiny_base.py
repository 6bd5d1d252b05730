"""A random base checkpoint in Mistral's published form, made without transformers.

Sharded, FP8 weights with 0-d scales, a vision tower of two tensors, the demonstration's tokenizer.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.demo.shape import make_config
from pipeline.demo.tokenizer import write_tokenizer

MISTRAL_PREFIX = "language_model.model."
TRANSFORMERS_PREFIX = "model.language_model."


def make_base_tensors(prefix: str = MISTRAL_PREFIX) -> dict[str, torch.Tensor]:
    """Return the tensors of a published checkpoint, random but always the same."""
    generator = torch.Generator().manual_seed(0)
    config = make_config(256)["text_config"] | {"tie_word_embeddings": False}
    head = "language_model.lm_head." if prefix == MISTRAL_PREFIX else "lm_head."
    tensors: dict[str, torch.Tensor] = {}
    for name, shape in list_tensor_shapes(config).items():
        weight = torch.randn(shape, generator=generator) * 0.05
        published = name.replace("model.", prefix, 1).replace("lm_head.", head)
        if "_proj." not in name:
            tensors[published] = (weight + (len(shape) == 1)).bfloat16()
            continue
        scale = (weight.abs().max() / 448).bfloat16()
        tensors[published] = (weight / scale.float()).to(torch.float8_e4m3fn)
        tensors[published + "_scale_inv"] = scale
        tensors[published.replace(".weight", ".activation_scale")] = torch.tensor(0.01).bfloat16()
    tower = "" if prefix == MISTRAL_PREFIX else "model."
    for part in ("vision_tower.ln_pre", "multi_modal_projector.norm"):
        tensors[f"{tower}{part}.weight"] = torch.ones(64, dtype=torch.bfloat16)
    return tensors


def write_base(folder: Path, prefix: str = MISTRAL_PREFIX, shards: int = 3) -> None:
    """Write the checkpoint: shards, index, configs, tokenizer, and files that must stay behind."""
    folder.mkdir(parents=True, exist_ok=True)
    write_shards(folder, make_base_tensors(prefix), shards)
    config = make_config(256)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "generation_config.json").write_text('{"bos_token_id": 1}', encoding="utf-8")
    (folder / "tekken.json").write_text("{}", encoding="utf-8")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n", encoding="utf-8")
    write_tokenizer(folder)


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    """Write the tensors in turn to `shards` files, and their index."""
    weight_map: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save_file(part, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
