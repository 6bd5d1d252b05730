"""A trained PEFT model -> adapter_model.safetensors and adapter_config.json, always the same bytes.

PEFT itself writes `target_modules` from a set, in an order that follows PYTHONHASHSEED, names the
base model by its path, and adds a dated model card. Here: lists sorted, a fixed name, no card.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict

from pipeline.checkpoint.safetensors_file import write_safetensors

# Where the base model lies is the store's business; PEFT wants some name in this field.
BASE_NAME = "text"


def _make_canonical(value: Any) -> Any:
    """Return the value as JSON can hold it: sets become sorted lists, enumerations their text."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {str(key): _make_canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_make_canonical(item) for item in value]
    return getattr(value, "value", value)


def read_adapter_tensors(
    model: PeftModel, trained: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by their names on disk, sorted, on the CPU.

    Factors as they are; modules that are saved whole in BF16, as which a merge takes them.
    `trained` holds them by the model's names where the model has but a part of each.
    """
    state = get_peft_model_state_dict(model, trained, save_embedding_layers=False)
    return {
        name: (state[name] if ".lora_" in name else state[name].bfloat16())
        .detach()
        .cpu()
        .contiguous()
        for name in sorted(state)
    }


def write_adapter(
    config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], out: Path
) -> None:
    """Write both files that PEFT and the merge read; `config` is that of PEFT's LoraConfig."""
    write_safetensors(tensors, out / "adapter_model.safetensors")
    values = _make_canonical(config)
    values |= {"base_model_name_or_path": BASE_NAME, "inference_mode": True}
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")
