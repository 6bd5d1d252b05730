"""A random text-only checkpoint of each family, in BF16, with the demonstration's tokenizer.

Four layers, so that the mixed file types give some layers more bits; what a row of one weight has
is no whole number of 256, so that the narrower types come in.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.demo.tokenizer import write_tokenizer

SINGLE = "model.safetensors"
LAYERS = 4
_VOCABULARY = 512
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

_SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": _VOCABULARY,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 11,
    "initializer_range": 0.05,
}

_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 256,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
_LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}

# family -> what its config has besides the sizes
FAMILIES: dict[str, dict[str, Any]] = {
    "ministral3": {"rope_parameters": _YARN, "tie_word_embeddings": False},
    # Rows of 160 in attn_output, and four query heads to a key.
    "mistral": {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 32},
    "llama": {"rope_parameters": _LLAMA_3, "tie_word_embeddings": False},
    "qwen3": {"tie_word_embeddings": True},
    "gemma3_text": {
        "tie_word_embeddings": True,
        "sliding_window": 64,
        "query_pre_attn_scalar": 64,
        "num_key_value_heads": 4,
    },
}


def write_family(folder: Path, family: str, **sizes: int) -> None:
    """Write the checkpoint, with other sizes where told; the same bytes each time."""
    folder.mkdir(parents=True)
    torch.manual_seed(7)
    config = AutoConfig.for_model(family, **(_SIZES | FAMILIES[family] | sizes))
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    tensors = dict(model.state_dict())
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    for name, tensor in tensors.items():
        if name.endswith("norm.weight"):
            tensor += 0.1 * torch.randn(tensor.shape).bfloat16()
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / SINGLE)
    written = config.to_dict() | {"architectures": [type(model).__name__]}
    (folder / "config.json").write_text(json.dumps(written, default=str), encoding="utf-8")
    write_tokenizer(folder)


def write_adapter(folder: Path, checkpoint: Path) -> None:
    """Write a LoRA adapter for every projection of a checkpoint that write_family has written."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    with safe_open(checkpoint / SINGLE, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            if name.split(".")[-2] in _PROJECTIONS:
                rows, columns = file.get_slice(name).get_shape()
                module = f"base_model.model.{name.removesuffix('.weight')}"
                tensors[f"{module}.lora_A.weight"] = torch.randn((8, columns), generator=generator)
                tensors[f"{module}.lora_B.weight"] = (
                    torch.randn((rows, 8), generator=generator) * 0.01
                )
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "use_rslora": False}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
