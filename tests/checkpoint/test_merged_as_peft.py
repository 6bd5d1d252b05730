"""The merge gives the bytes of PEFT's own merge_and_unload."""

from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.checkpoint.merged import merge, read_adapter
from pipeline.checkpoint.shards import read_checkpoint
from tests.tiny_text import write_text_checkpoint

# PEFT 0.21 asks transformers 5 by a name that it is about to drop.
pytestmark = pytest.mark.train
ignore_old_name = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@ignore_old_name
@pytest.mark.parametrize("use_rslora", [False, True])
def test_it_equals_merge_and_unload(tmp_path: Path, use_rslora: bool) -> None:
    write_text_checkpoint(tmp_path / "text")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "text", dtype=torch.bfloat16)
    config = peft.LoraConfig(
        r=8,
        lora_alpha=12,
        use_rslora=use_rslora,
        target_modules=["q_proj", "o_proj", "down_proj"],
        # Random factors on both sides: the usual B is zero.
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    adapted = peft.get_peft_model(model, config)
    adapted.save_pretrained(str(tmp_path / "adapter"))
    expected = adapted.merge_and_unload().state_dict()
    text, adapter = read_checkpoint(tmp_path / "text"), read_adapter(tmp_path / "adapter")
    assert len(adapter.factors) == 6
    for name, (a_name, b_name) in adapter.factors.items():
        a_RI, b_OR = adapter.tensors.read(a_name), adapter.tensors.read(b_name)
        found = merge(text.read(name), a_RI, b_OR, adapter.scaling)
        assert torch.equal(found, expected[name]), name
