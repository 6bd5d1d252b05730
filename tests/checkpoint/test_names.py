"""Each published name has one meaning; an unknown one is an error that quotes it."""

from pathlib import Path

import pytest

from pipeline.checkpoint.names import NamePlan, find_weight, plan_names
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


@pytest.mark.parametrize("scale", ["weight_scale_inv", "weight_scale", "qscale_weight"])
def test_a_scale_has_three_names(scale: str) -> None:
    up = "model.layers.0.mlp.up_proj"
    assert plan(f"{up}.weight", f"{up}.{scale}").scales == {f"{up}.weight": f"{up}.{scale}"}
    with pytest.raises(StageError, match="one meaning"):
        plan(f"{up}.weight", f"{up}.{scale}", f"language_model.{up}.{scale}")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.up_proj.input_scale",
        "language_model.model.layers.0.mlp.up_proj.activation_scale",
        "model.layers.0.self_attn.o_proj.qscale_act",
        "model.layers.0.self_attn.k_scale",
        "model.language_model.layers.0.self_attn.v_scale",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ],
)
def test_what_only_activations_need_is_dropped(name: str) -> None:
    assert plan(name).dropped == (name,)


@pytest.mark.parametrize(
    "norm",
    [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
        "self_attn.q_norm",
        "self_attn.k_norm",
    ],
)
def test_every_norm_of_the_families_is_known(norm: str) -> None:
    found = plan(f"model.language_model.layers.3.{norm}.weight")
    assert set(found.weights) == {f"model.layers.3.{norm}.weight"}


@pytest.mark.parametrize(
    ("name", "weight"),
    [
        ("model.language_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("vision_tower.ln_pre.weight", None),
        ("other.weight", None),
    ],
)
def test_a_weight_is_found_by_its_published_name(name: str, weight: str | None) -> None:
    assert find_weight(name) == weight


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
