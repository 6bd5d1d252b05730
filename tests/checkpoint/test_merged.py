"""W + s B A by hand, all of the adapter or an error."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import merged, text
from pipeline.errors import StageError
from tests.checkpoint.tiny_base import write_base

pytestmark = pytest.mark.convert

QUERY = "model.layers.1.self_attn.q_proj"
A_NAME = f"base_model.model.{QUERY}.lora_A.weight"
B_NAME = f"base_model.model.{QUERY}.lora_B.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("merged")
    write_base(root / "base")
    (root / "text").mkdir()
    text.run({"base": root / "base"}, text.Options(cpu_threads=1), root / "text")
    return root / "text"


def make_pair(rank: int = 4) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        A_NAME: torch.randn(rank, 256, generator=generator),
        B_NAME: torch.randn(256, rank, generator=generator),
    }


def write_adapter(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    known = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "use_rslora": False}
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    return folder


def run(checkpoint: Path, adapter: Path, out: Path) -> dict[str, torch.Tensor]:
    out.mkdir()
    inputs = {"text": checkpoint, "adapter": adapter}
    merged.run(inputs, merged.Options(cpu_threads=1), out)
    tensors: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
    return tensors


def test_the_sum_by_hand() -> None:
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).bfloat16()
    a_RI, b_OR = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5], [2.0]])
    found = merged.merge(weight, a_RI, b_OR, 2.0)
    assert found.tolist() == [[2.0, 1.0], [7.0, 0.0]]


def test_the_sum_is_rounded_once() -> None:
    # BF16 steps by 1/128 from 1 on: a delta rounded before the sum would be lost or doubled.
    weight = torch.tensor([[1.0]]).bfloat16()
    delta = torch.tensor([[3 / 512 + 2**-20]])
    found = merged.merge(weight, delta, torch.tensor([[1.0]]), 1.0)
    assert found.item() == 1 + 1 / 128


@pytest.mark.parametrize(("use_rslora", "scaling"), [(False, 2.0), (True, 4.0)])
def test_only_the_adapted_weight_changes(
    tmp_path: Path, checkpoint: Path, use_rslora: bool, scaling: float
) -> None:
    pair = make_pair()
    adapter = write_adapter(tmp_path / "adapter", pair, use_rslora=use_rslora)
    found = run(checkpoint, adapter, tmp_path / "out")
    before = load_file(checkpoint / "model.safetensors")
    expected = before[f"{QUERY}.weight"].float() + (pair[B_NAME] @ pair[A_NAME]) * scaling
    assert torch.equal(found.pop(f"{QUERY}.weight"), expected.bfloat16())
    assert all(torch.equal(found[name], before[name]) for name in found)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in checkpoint.iterdir()
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"use_dora": True}, "use_dora = True"),
        ({"bias": "all"}, "bias = 'all'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa'"),
        ({"peft_type": "IA3"}, "peft_type = 'IA3'"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    tmp_path: Path, checkpoint: Path, config: dict[str, Any], words: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", make_pair(), **config)
    with pytest.raises(StageError) as error:
        run(checkpoint, adapter, tmp_path / "out")
    assert words in error.value.on
    assert list((tmp_path / "out").iterdir()) == []


def rename(old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new): tensor for name, tensor in make_pair().items()}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (rename("layers.1", "layers.7"), "the checkpoint has no model.layers.7"),
        (rename("q_proj", "k_proj"), "do not fit model.layers.1.self_attn.k_proj.weight"),
        (rename("lora_A.weight", "lora_magnitude"), "no factor of a LoRA pair"),
        ({A_NAME: torch.ones(4, 256)}, "the other factor"),
        ({A_NAME: torch.ones(4, 256), B_NAME: torch.zeros(256, 4)}, "changes no weight"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tmp_path: Path, checkpoint: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", tensors)
    with pytest.raises(StageError) as error:
        run(checkpoint, adapter, tmp_path / "out")
    assert words in error.value.why
