"""A checkpoint of a family that is not in the table goes through as it is.

Mixture-of-experts models, random and tiny, against llama.cpp's own steps; and what is refused.
"""

import filecmp
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline import log
from pipeline.checkpoint import adapter_gguf, gguf, merged, text
from pipeline.checkpoint.gguf_check import check_tensors
from pipeline.checkpoint.gguf_logits import MAX_NMSE
from pipeline.checkpoint.llama_source import read_shapes
from pipeline.checkpoint.weights import open_weights
from pipeline.demo.tokenizer import write_tokenizer
from pipeline.errors import StageError
from tests.checkpoint import classic_chain

pytestmark = pytest.mark.convert

NAME = "Tiny 4x7B"
NOTE = (
    "note: family {}: not in the table; its tensors are taken as they are and llama.cpp's own "
    "steps write the GGUF\n"
)
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
_SIZES = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
    "num_experts_per_tok": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 11,
    "initializer_range": 0.05,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4},
    # llama.cpp knows no Qwen 3 without norm_topk_prob, and none is published.
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 256, "norm_topk_prob": True},
}


def write_model(folder: Path, family: str) -> None:
    """Write a random checkpoint as it would be published: by transformers, in BF16."""
    torch.manual_seed(7)
    config = AutoConfig.for_model(family, **(_SIZES | FAMILIES[family]))
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder)


def write_adapter(folder: Path, base: Path, **config: object) -> None:
    folder.mkdir()
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        module = name.removesuffix(".weight")
        if module.endswith(_PROJECTIONS):
            rows, columns = weight.shape
            key = f"base_model.model.{module}"
            tensors[f"{key}.lora_A.weight"] = torch.randn((4, columns), generator=generator)
            tensors[f"{key}.lora_B.weight"] = torch.randn((rows, 4), generator=generator) * 0.01
    save_file(tensors, folder / "adapter_model.safetensors")
    plain = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    plain["target_modules"] = [*_PROJECTIONS, "gate_proj"]
    (folder / "adapter_config.json").write_text(json.dumps(plain | config))


@pytest.fixture(scope="module", params=FAMILIES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `base`, `adapter`, `model` (merged) and its GGUF in BF16."""
    root = tmp_path_factory.mktemp(request.param)
    write_model(root / "base", request.param)
    write_adapter(root / "adapter", root / "base")
    (root / "model").mkdir()
    inputs = {"text": root / "base", "adapter": root / "adapter"}
    merged.run(inputs, merged.Options(cpu_threads=1), root / "model")
    classic_chain.convert(root / "model", root / "BF16.gguf", "BF16", NAME)
    return root


@pytest.fixture(autouse=True)
def start_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_started", True)


def write_gguf(root: Path, out: Path, file_type: str) -> Path:
    out.mkdir()
    options = gguf.Options(type=file_type, model_name=NAME, tensor_types=(), chat_template="")
    gguf.run({"base": root / "base", "adapter": root / "adapter"}, options, out)
    return out / gguf.GGUF


@pytest.mark.parametrize("file_type", ["BF16", "Q4_K_M"])
def test_the_file_is_the_classic_one(
    root: Path, tmp_path: Path, file_type: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = root / "BF16.gguf"
    if file_type != "BF16":
        expected = tmp_path / "expected.gguf"
        classic_chain.quantize(root / "BF16.gguf", expected, file_type)
    capsys.readouterr()
    found = write_gguf(root, tmp_path / "out", file_type)
    said = capsys.readouterr().err
    family = json.loads((root / "base" / "config.json").read_text())["model_type"]
    assert said.count(NOTE.format(family)) == 1
    assert filecmp.cmp(expected, found, shallow=False)
    assert sorted(path.name for path in found.parent.iterdir()) == [gguf.CHECKS, gguf.GGUF]


def test_the_text_checkpoint_is_the_published_one(root: Path, tmp_path: Path) -> None:
    text.run({"base": root / "base"}, text.Options(chat_template="", cpu_threads=1), tmp_path)
    assert filecmp.cmp(root / "base" / "model.safetensors", tmp_path / "model.safetensors", False)
    published = json.loads((root / "base" / "config.json").read_text())
    assert json.loads((tmp_path / "config.json").read_text()) == published


def test_transformers_reads_the_merged_checkpoint_and_answers_alike(root: Path) -> None:
    model, loading = AutoModelForCausalLM.from_pretrained(
        root / "model", output_loading_info=True, dtype=torch.float32
    )
    assert not any(loading.values())
    base = load_file(root / "base" / "model.safetensors")
    changed = load_file(root / "model" / "model.safetensors")
    assert {name for name in base if not torch.equal(base[name], changed[name])} == {
        name for name in base if name.removesuffix(".weight").endswith(_PROJECTIONS)
    }
    llama = llama_cpp.Llama(str(root / "BF16.gguf"), n_ctx=64, logits_all=True, verbose=False)
    ids = list(range(20, 60))
    llama.eval(ids)
    expected = model(torch.tensor([ids])).logits[0].detach().numpy()
    distance = np.square(llama.scores[: len(ids)] - expected).sum() / np.square(expected).sum()
    llama.close()
    assert distance < MAX_NMSE


def test_other_floats_are_rounded_and_said(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_changed(root, tmp_path, lambda tensors: {n: t.float() for n, t in tensors.items()})
    weights = open_weights(tmp_path / "base")
    total = len(weights.shapes)
    assert f"note: {total} of {total} tensors are F16 or F32" in capsys.readouterr().err
    assert weights.read_rows("model.norm.weight", 0, 1).dtype == torch.bfloat16


def write_changed(
    root: Path,
    folder: Path,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = dict,
    **config: object,
) -> None:
    """Write a copy of the base with other tensors, and with other values in its config."""
    base = folder / "base"
    base.mkdir()
    for path in (root / "base").iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    tensors = change(load_file(base / "model.safetensors"))
    save_file(
        {name: each.contiguous() for name, each in tensors.items()}, base / "model.safetensors"
    )
    published = json.loads((base / "config.json").read_text()) | config
    (base / "config.json").write_text(json.dumps(published))


def quantize_norm(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"model.norm.weight": tensors["model.norm.weight"].to(torch.float8_e4m3fn)}


def add_number(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"model.steps": torch.tensor(3)}


def add_scalar(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"model.scale": torch.tensor(3.0)}


@pytest.mark.parametrize(
    ("change", "config", "words"),
    [
        (dict, {"architectures": ["NovelForCausalLM"]}, ["does not know", "NovelForCausalLM"]),
        (dict, {"architectures": None}, ["family is not supported", "architectures"]),
        (dict, {"vision_config": {}}, ["family is not supported", "vision_config"]),
        (dict, {"quantization_config": {"quant_method": "fp8"}}, ["quantization_config"]),
        (quantize_norm, {}, ["not known", "model.norm.weight", "F8_E4M3"]),
        (add_number, {}, ["not known", "model.steps", "I64"]),
        (add_scalar, {}, ["not known", "model.scale", "F32 ()"]),
    ],
)
def test_what_cannot_be_taken_is_refused_before_anything_is_written(
    root: Path,
    tmp_path: Path,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    config: dict[str, Any],
    words: list[str],
) -> None:
    write_changed(root, tmp_path, change, **config)
    (tmp_path / "out").mkdir()
    options = gguf.Options(type="Q4_K_M", model_name=NAME, tensor_types=(), chat_template="")
    with pytest.raises(StageError) as caught:
        gguf.run({"base": tmp_path / "base"}, options, tmp_path / "out")
    assert all(word in str(caught.value) for word in words)
    with pytest.raises(StageError) as caught:
        text.run(
            {"base": tmp_path / "base"},
            text.Options(chat_template="", cpu_threads=1),
            tmp_path / "out",
        )
    assert all(word in str(caught.value) for word in words)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_adapter_of_one_layer_alone_is_refused(root: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", root / "base")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    kept = {name: each for name, each in load_file(path).items() if ".layers.0." in name}
    save_file(kept, path)
    with pytest.raises(StageError, match=r"layers\.1\.self_attn"):
        open_weights(root / "base", tmp_path / "adapter")


def test_an_adapter_for_a_parameter_of_experts_is_refused(root: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "adapter", root / "base", target_parameters=["experts.down_proj"])
    with pytest.raises(StageError, match="target_parameters"):
        open_weights(root / "base", tmp_path / "adapter")


def test_the_adapter_alone_is_no_gguf(root: Path, tmp_path: Path) -> None:
    inputs = {"base": root / "base", "adapter": root / "adapter"}
    with pytest.raises(StageError, match="cannot be a GGUF"):
        adapter_gguf.run(inputs, adapter_gguf.Options(model_name=NAME, chat_template=""), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_is_lost_on_the_way_is_noticed(root: Path) -> None:
    shapes = read_shapes(root / "BF16.gguf")
    with pytest.raises(StageError, match=r"tensor blk\.9\.ffn_up\.weight"):
        check_tensors(shapes, shapes | {"blk.9.ffn_up.weight": (1, 1)})


def test_a_tensor_that_the_converter_does_not_know_is_refused_first(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "write_in_steps", None)
    monkeypatch.setattr(text, "write_checkpoint", None)
    novelty = {"model.layers.0.novelty.weight": torch.ones(256).bfloat16()}
    write_changed(root, tmp_path, lambda tensors: tensors | novelty)
    (tmp_path / "out").mkdir()
    inputs, words = {"base": tmp_path / "base"}, r"(?s)converter fails.*layers\.0\.novelty"
    options = gguf.Options(type="BF16", model_name=NAME, tensor_types=(), chat_template="")
    with pytest.raises(StageError, match=words):
        gguf.run(inputs, options, tmp_path / "out")
    with pytest.raises(StageError, match=words):
        text.run(inputs, text.Options(chat_template="", cpu_threads=1), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
