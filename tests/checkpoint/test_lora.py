"""All of an adapter is applied, row by row, or it is refused with the module or tensor named."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from pipeline.checkpoint.lora import Adapter, merge, read_adapter
from pipeline.errors import StageError

pytestmark = pytest.mark.convert

SHAPES = {
    "model.embed_tokens.weight": (100, 48),
    "model.layers.0.input_layernorm.weight": (48,),
    "model.layers.0.self_attn.q_proj.weight": (70, 48),
    "model.layers.0.mlp.up_proj.weight": (96, 48),
    "model.layers.1.self_attn.q_proj.weight": (70, 48),
    "model.layers.1.mlp.up_proj.weight": (96, 48),
    "lm_head.weight": (100, 48),
}
Q0, Q1 = (f"model.layers.{n}.self_attn.q_proj" for n in (0, 1))


def make_pair(module: str, rank: int = 4, prefix: str = "base_model.model.") -> dict[str, Any]:
    """Return random factors of a module of SHAPES."""
    rows, columns = SHAPES[f"{module}.weight"]
    generator = torch.Generator().manual_seed(len(module))
    return {
        f"{prefix}{module}.lora_A.weight": torch.randn(rank, columns, generator=generator),
        f"{prefix}{module}.lora_B.weight": torch.randn(rows, rank, generator=generator),
    }


def write_adapter(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    return folder


def read(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Adapter:
    return read_adapter(write_adapter(folder, tensors, **config), SHAPES, tied=False)


def test_the_sum_by_hand() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).bfloat16()
    a_RI, b_OR = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5], [2.0]])
    assert merge(weight, a_RI, b_OR, 2.0).tolist() == [[2.0, 1.0], [7.0, 0.0]]


def test_the_sum_is_rounded_once() -> None:
    # BF16 steps by 1/128 from 1 on: a delta rounded before the sum would be lost or doubled.
    weight = torch.tensor([[1.0]]).bfloat16()
    delta = torch.tensor([[3 / 512 + 2**-20]])
    assert merge(weight, delta, torch.tensor([[1.0]]), 1.0).item() == 1 + 1 / 128


@settings(max_examples=40)
@given(
    rows=st.integers(1, 400),
    columns=st.integers(1, 700),
    rank=st.sampled_from([1, 3, 8, 16, 64]),
    data=st.data(),
)
def test_a_row_has_the_same_bits_in_every_slab(
    rows: int, columns: int, rank: int, data: Any
) -> None:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(rows, columns, generator=generator).bfloat16()
    a_RI = torch.randn(rank, columns, generator=generator)
    b_OR = torch.randn(rows, rank, generator=generator)
    start = 32 * data.draw(st.integers(0, (rows - 1) // 32))
    stop = data.draw(st.integers(start + 1, rows))
    whole = merge(weight, a_RI, b_OR, 0.7)
    assert torch.equal(merge(weight[start:stop], a_RI, b_OR[start:stop], 0.7), whole[start:stop])


@pytest.mark.parametrize(
    ("config", "rank", "scaling"),
    [
        ({}, 4, 2.0),
        ({"use_rslora": True}, 4, 4.0),
        ({"rank_pattern": {"q_proj": 16}}, 16, 0.5),
        ({"rank_pattern": {"_proj": 16, "up_proj": 7}}, 4, 2.0),
        ({"rank_pattern": {r"layers\.0\..*": 16}, "use_rslora": True}, 16, 2.0),
        ({"alpha_pattern": {"self_attn.q_proj": 3}}, 4, 0.75),
        ({"rank_pattern": {f"^{Q0}": 2}, "alpha_pattern": {"[q]_proj": 6}}, 2, 3.0),
    ],
    ids=str,
)
def test_the_scaling_is_the_modules_own(
    tmp_path: Path, config: dict[str, Any], rank: int, scaling: float
) -> None:
    adapter = read(tmp_path, make_pair(Q0, rank), **config)
    assert math.isclose(adapter.pairs[f"{Q0}.weight"].scaling, scaling)


@pytest.mark.parametrize(
    "prefix", ["model.language_model.layers", "language_model.model.layers", "model.layers"]
)
def test_an_adapter_of_the_vision_language_model_fits_its_text_model(
    tmp_path: Path, prefix: str
) -> None:
    published = {
        name.replace("model.layers", prefix, 1)
        if "base_model.model.model" not in name
        else name.replace("model.model.layers", f"model.{prefix}"): tensor
        for name, tensor in make_pair(Q0).items()
    }
    targets = r".*layers\.0.*q_proj"
    assert set(read(tmp_path, published, target_modules=targets).pairs) == {f"{Q0}.weight"}


def test_a_saved_module_takes_the_weights_place(tmp_path: Path) -> None:
    head = torch.randn(100, 48)
    tensors = make_pair(Q0) | {"base_model.model.lm_head.weight": head}
    adapter = read(tmp_path, tensors, modules_to_save=["lm_head"])
    base = torch.zeros(64, 48).bfloat16()
    assert torch.equal(adapter.apply("lm_head.weight", base[:36], 64), head[64:].bfloat16())
    other = "model.layers.0.mlp.up_proj.weight"
    assert adapter.apply(other, base, 0) is base
    assert "1 of 1 modules, scaling 2, 1 whole weights" in str(adapter)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
        ({"target_parameters": ["experts"]}, "target_parameters"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"r": 0}, "adapter_config.json, r"),
        ({"r": "4"}, "adapter_config.json, r"),
        ({"lora_alpha": None}, "adapter_config.json, lora_alpha"),
        ({"rank_pattern": {"(": 4}}, "adapter_config.json, rank_pattern"),
        ({"target_modules": "*"}, "adapter_config.json, target_modules"),
        ({"rank_pattern": {"q_proj": "x"}}, "q_proj"),
        ({"rank_pattern": [4]}, "rank_pattern"),
        ({"target_modules": 7}, "target_modules"),
        ({"layers_to_transform": "all"}, "layers_to_transform"),
    ],
    ids=str,
)
def test_what_is_not_plain_lora_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(StageError) as error:
        read(tmp_path, make_pair(Q0), **config)
    assert words in error.value.on


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"target_modules": ["q_proj"]}, f"targets {Q1}"),
        ({"target_modules": "all-linear"}, "targets model.layers.0.mlp.up_proj"),
        ({"target_modules": r".*\.(q|up)_proj"}, "targets model.layers.0.mlp.up_proj"),
        ({"target_modules": r"model\.language_model\..*\.q_proj"}, f"targets {Q1}"),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0, 1]}, f"targets {Q1}"),
        ({"target_modules": ["q_proj"], "exclude_modules": [Q0]}, f"targets {Q1}"),
        ({"modules_to_save": ["lm_head"]}, "saves lm_head"),
        ({"r": 8}, "its rank 8"),
    ],
    ids=str,
)
def test_an_adapter_that_is_not_whole_is_refused(
    tmp_path: Path, config: dict[str, Any], words: str
) -> None:
    with pytest.raises(StageError) as error:
        read(tmp_path, make_pair(Q0), **config)
    assert words in error.value.why


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj"], "layers_to_transform": 0},
        {"target_modules": ["q_proj"], "layers_to_transform": [0], "layers_pattern": "layers"},
        {"target_modules": ["q_proj"], "exclude_modules": ["layers.1.self_attn.q_proj"]},
        {"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"},
        {"target_modules": [Q0]},
        {"target_modules": None},
    ],
    ids=str,
)
def test_modules_that_are_left_out_on_purpose_are_not_missed(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    assert len(read(tmp_path, make_pair(Q0), **config).pairs) == 1


A_NAME, B_NAME = make_pair(Q0)
HEAD = "base_model.model.lm_head.weight"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({A_NAME: None}, "the other factor"),
        ({A_NAME: torch.ones(4, 47)}, "do not fit"),
        ({B_NAME: torch.ones(71, 4)}, "do not fit"),
        ({B_NAME: torch.ones(70, 5)}, "do not fit"),
        ({A_NAME: torch.ones(4)}, "do not fit"),
        ({A_NAME: torch.ones(4, 48).long()}, "I64, no plain float"),
        ({B_NAME: torch.zeros(70, 4)}, "changes no weight"),
        ({HEAD: torch.ones(100, 48)}, "nor a saved module"),
        ({A_NAME.replace("A.w", "magnitude.w"): torch.ones(4)}, "nor a saved module"),
        ({A_NAME.replace("layers.0", "layers.7"): torch.ones(4, 48)}, "no model.layers.7"),
        (
            {"base_model.model.vision_tower.q_proj.lora_A.weight": torch.ones(4, 4)},
            "no vision_tower.q_proj.weight",
        ),
        (
            {A_NAME.replace("model.layers", "model.language_model.layers"): torch.ones(4, 48)},
            "both change the same weight",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, torch.Tensor | None], words: str
) -> None:
    tensors = make_pair(Q0) | changes
    with pytest.raises(StageError) as error:
        read(tmp_path, {name: each for name, each in tensors.items() if each is not None})
    assert words in error.value.why


@pytest.mark.parametrize(
    ("name", "shape", "tied", "words"),
    [
        ("lm_head", (99, 48), False, "lm_head.weight is (100, 48)"),
        ("model.embed_tokens", (100, 48), True, "the checkpoint ties them"),
    ],
)
def test_a_saved_module_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, ...], tied: bool, words: str
) -> None:
    tensors = make_pair(Q0) | {f"base_model.model.{name}.weight": torch.ones(shape)}
    write_adapter(tmp_path, tensors, modules_to_save=[name])
    with pytest.raises(StageError) as error:
        read_adapter(tmp_path, SHAPES, tied=tied)
    assert words in error.value.why
