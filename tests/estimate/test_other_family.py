"""The plan of a base whose family is not in the table: sizes follow from its files' bytes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UsageError
from pipeline.estimate.estimate import Estimate, estimate
from pipeline.recipe.recipe import read_recipe

REFERENCE = Path(__file__).parents[2] / "recipes" / "reference.toml"

_EXPERTS = {
    "model_type": "qwen3_moe",
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": False,
}
_PARAMETERS = 30_532_122_624  # Qwen3-30B-A3B


def estimate_base(folder: Path, config: dict[str, Any], size_bytes: int) -> Estimate:
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size_bytes)  # a hole: nothing is written
    recipe = read_recipe(REFERENCE)
    return estimate(replace(recipe, base=replace(recipe.base, source=str(folder))))


def test_a_mixture_of_experts_is_as_large_as_its_files(tmp_path: Path) -> None:
    found = estimate_base(tmp_path, _EXPERTS, 2 * _PARAMETERS)
    assert found.base_parameters == pytest.approx(_PARAMETERS, rel=0.01)
    assert found.text_bytes == pytest.approx(2 * _PARAMETERS, rel=0.01)
    # A published file of this type has 18,556,686,912 bytes.
    assert found.gguf_bytes["Q4_K_M"] == pytest.approx(18_556_686_912, rel=0.03)


@pytest.mark.parametrize("dtype", ["dtype", "torch_dtype"])
def test_files_in_float32_hold_half_as_many(tmp_path: Path, dtype: str) -> None:
    found = estimate_base(tmp_path, _EXPERTS | {dtype: "float32"}, 4 * _PARAMETERS)
    assert found.base_parameters == pytest.approx(_PARAMETERS, rel=0.01)


def test_older_names_of_sizes_are_understood(tmp_path: Path) -> None:
    config = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}
    found = estimate_base(tmp_path, config | {"tie_word_embeddings": True}, 2 * 124_439_808)
    assert found.base_parameters == pytest.approx(124_439_808, rel=0.1)


@pytest.mark.parametrize("key", ["text_config", "vision_config", "quantization_config"])
def test_a_model_that_is_more_than_plain_text_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(UsageError, match="dense decoder"):
        estimate_base(tmp_path, _EXPERTS | {key: {}}, 1 << 30)


def test_a_config_without_sizes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dense decoder"):
        estimate_base(tmp_path, {"model_type": "unknown"}, 1 << 30)
