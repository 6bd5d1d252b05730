"""Each published name has one meaning; an unknown one is an error that quotes it."""

from pathlib import Path

import pytest

from pipeline.checkpoint.names import NamePlan, plan_names
from pipeline.checkpoint.safetensors_header import TensorEntry
from pipeline.errors import StageError


def plan(*names: str) -> NamePlan:
    return plan_names(
        {
            name: TensorEntry(
                name=name,
                shard=Path("model.safetensors"),
                dtype="F8_E4M3" if name.endswith("_proj.weight") else "BF16",
                shape=(),
                begin=0,
                end=1,
            )
            for name in names
        }
    )


@pytest.mark.parametrize("text", ["language_model.model", "model.language_model", "model"])
def test_both_layouts_and_text_only_have_one_meaning(text: str) -> None:
    found = plan(
        f"{text}.embed_tokens.weight",
        f"{text}.layers.39.mlp.down_proj.weight",
        f"{text}.layers.39.mlp.down_proj.weight_scale_inv",
        f"{text}.layers.39.mlp.down_proj.activation_scale",
        f"{text}.layers.0.input_layernorm.weight",
        f"{text}.norm.weight",
    )
    down = "model.layers.39.mlp.down_proj.weight"
    assert set(found.weights) == {
        "model.embed_tokens.weight",
        down,
        "model.layers.0.input_layernorm.weight",
        "model.norm.weight",
    }
    assert found.weights[down] == f"{text}.layers.39.mlp.down_proj.weight"
    assert found.scales == {down: f"{text}.layers.39.mlp.down_proj.weight_scale_inv"}
    assert found.dropped == (f"{text}.layers.39.mlp.down_proj.activation_scale",)
    assert str(found) == ("6 tensors: 4 weights, 1 scales used by them, 1 dropped on purpose")


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.transformer.layers.0.attention.q_proj.weight",
        "model.vision_tower.ln_pre.weight",
        "multi_modal_projector.linear_1.weight",
        "model.multi_modal_projector.patch_merger.merging_layer.weight",
    ],
)
def test_vision_is_dropped(name: str) -> None:
    found = plan_names({name: TensorEntry(
        name=name, shard=Path("m"), dtype="BF16", shape=(), begin=0, end=2
    )})  # fmt: skip
    assert found.dropped == (name,)
    assert not found.weights


@pytest.mark.parametrize("name", ["language_model.lm_head.weight", "lm_head.weight"])
def test_the_head_has_one_name(name: str) -> None:
    assert plan(name).weights == {"lm_head.weight": name}


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.qweight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.x.input_layernorm.weight",
        "modelxnorm.weight",
        "visual.blocks.0.weight",
    ],
)
def test_an_unknown_name_is_quoted(name: str) -> None:
    with pytest.raises(StageError) as error:
        plan(name)
    assert error.value.on == name


def test_two_layouts_in_one_checkpoint_are_refused() -> None:
    with pytest.raises(StageError, match="one meaning"):
        plan("language_model.model.norm.weight", "model.language_model.norm.weight")


@pytest.mark.parametrize("part", ["weight", "weight_scale_inv"])
def test_a_weight_and_its_scale_come_together(part: str) -> None:
    with pytest.raises(StageError, match="do not belong together"):
        plan(f"model.layers.0.mlp.up_proj.{part}")
