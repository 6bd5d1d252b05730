"""The merged checkpoint is the text-only one with the adapted weights changed, and no others."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

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
    text.run({"base": root / "base"}, text.Options(chat_template="", cpu_threads=1), root / "text")
    return root / "text"


def make_pair() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        A_NAME: torch.randn(4, 256, generator=generator),
        B_NAME: torch.randn(256, 4, generator=generator),
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


def test_it_is_the_same_from_the_published_base(tmp_path: Path, checkpoint: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", make_pair())
    write_base(tmp_path / "base")
    run(checkpoint, adapter, tmp_path / "one")
    run(tmp_path / "base", adapter, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_transformers_can_load_it(tmp_path: Path, checkpoint: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", make_pair())
    tensors = run(checkpoint, adapter, tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    loaded = model.state_dict()
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"use_dora": True}, "use_dora = True"), ({"target_modules": ["q_proj"]}, "adapter_model")],
)
def test_a_bad_adapter_is_refused_before_anything_is_written(
    tmp_path: Path, checkpoint: Path, config: dict[str, Any], words: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", make_pair(), **config)
    with pytest.raises(StageError) as error:
        run(checkpoint, adapter, tmp_path / "out")
    assert words in error.value.on
    assert list((tmp_path / "out").iterdir()) == []
