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


def read_adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors by their names on disk, sorted, on the CPU."""
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def write_adapter(model: PeftModel, tensors: Mapping[str, torch.Tensor], out: Path) -> None:
    """Write both files that PEFT and the merge read."""
    write_safetensors(tensors, out / "adapter_model.safetensors")
    config = _make_canonical(model.peft_config["default"].to_dict())
    config |= {"base_model_name_or_path": BASE_NAME, "inference_mode": True}
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (out / "adapter_config.json").write_text(text, encoding="utf-8")
