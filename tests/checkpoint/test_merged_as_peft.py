"""The merge gives the bytes of PEFT's own merge_and_unload, whatever the adapter's config says."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.checkpoint.weights import open_weights
from tests.tiny_text import write_text_checkpoint

# PEFT 0.21 asks transformers 5 by a name that it is about to drop.
pytestmark = pytest.mark.train
ignore_old_name = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SOME = ["q_proj", "o_proj", "down_proj"]


@ignore_old_name
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 6),
        ({"use_rslora": True}, 6),
        ({"rank_pattern": {"down_proj": 3, r"layers.1.self_attn.\w+": 5}}, 6),
        ({"rank_pattern": {r"^model\.layers\.0\..*": 2}, "use_rslora": True}, 6),
        ({"alpha_pattern": {"o_proj": 40, "model.layers.1.mlp.down_proj": 7}}, 6),
        ({"modules_to_save": ["lm_head", "post_attention_layernorm"]}, 6),
        ({"modules_to_save": ["embed_tokens"]}, 6),
        ({"target_modules": r".*\.layers\.1\.mlp\.(gate|up)_proj"}, 2),
        ({"target_modules": "all-linear"}, 14),
        ({"layers_to_transform": [1]}, 3),
        ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, 5),
        ({"target_modules": [*SOME, "lm_head"]}, 7),
    ],
    ids=str,
)
def test_it_equals_merge_and_unload(tmp_path: Path, options: dict[str, Any], count: int) -> None:
    write_text_checkpoint(tmp_path / "text")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype=torch.bfloat16)
    known = {"r": 8, "lora_alpha": 12, "target_modules": SOME}
    # Random factors on both sides: the usual B is zero.
    config = peft.LoraConfig(**(known | options), init_lora_weights=False)
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "modules_to_save" in name:
            parameter.data += 0.01 * torch.randn(parameter.shape)
    adapted.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    expected = adapted.merge_and_unload().state_dict()
    weights = open_weights(tmp_path / "text", tmp_path / "adapter")
    assert weights.adapter is not None
    assert len(weights.adapter.pairs) == count
    for name, (rows, *_) in weights.shapes.items():
        found = weights.read_rows(name, 0, rows)
        assert torch.equal(found, expected[name].bfloat16()), name
