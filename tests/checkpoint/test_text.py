"""The text-only checkpoint equals its source tensor by tensor; a bad source leaves nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.checkpoint import text
from pipeline.checkpoint.text_config import make_text_config
from pipeline.checkpoint.text_tensors import DEFAULTS
from pipeline.data.templates import BUILT_IN
from pipeline.errors import StageError
from tests.checkpoint.tiny_base import (
    MISTRAL_PREFIX,
    TRANSFORMERS_PREFIX,
    make_base_tensors,
    write_base,
    write_shards,
)
from tests.checkpoint.tiny_families import FAMILIES, write_family

pytestmark = pytest.mark.convert

OPTIONS = text.Options(chat_template="", cpu_threads=1)


def build(base: Path, out: Path) -> dict[str, torch.Tensor]:
    out.mkdir()
    text.run({"base": base}, OPTIONS, out)
    tensors: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
    return tensors


@pytest.mark.parametrize("prefix", [MISTRAL_PREFIX, TRANSFORMERS_PREFIX])
def test_every_tensor_is_the_source_dequantized(tmp_path: Path, prefix: str) -> None:
    write_base(tmp_path / "base", prefix)
    source = make_base_tensors(prefix)
    found = build(tmp_path / "base", tmp_path / "out")
    assert len(found) == 21
    for name, tensor in found.items():
        published = name.replace("model.", prefix, 1)
        if name == "lm_head.weight" and prefix == MISTRAL_PREFIX:
            published = "language_model.lm_head.weight"
        expected = source[published].float()
        if "_proj." in name:
            expected = expected * source[f"{published}_scale_inv"].float()
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected.bfloat16()), name


def test_the_config_is_the_text_config_word_for_word(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    build(tmp_path / "base", tmp_path / "out")
    published = json.loads((tmp_path / "base" / "config.json").read_text())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    changed = {
        "architectures": ["Ministral3ForCausalLM"],
        "dtype": "bfloat16",
        "tie_word_embeddings": False,
        "transformers_version": published["transformers_version"],
    }
    assert config == published["text_config"] | changed


def test_the_files_are_those_that_training_and_serving_need(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    build(tmp_path / "base", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_bytes_do_not_depend_on_sharding_or_place(tmp_path: Path) -> None:
    write_base(tmp_path / "a", shards=1)
    write_base(tmp_path / "b", shards=5)
    for name in ("a", "b"):
        build(tmp_path / name, tmp_path / f"{name}-out")
    for path in (tmp_path / "a-out").iterdir():
        assert path.read_bytes() == (tmp_path / "b-out" / path.name).read_bytes()


def test_a_text_only_checkpoint_in_float32_is_rounded(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    first = build(tmp_path / "base", tmp_path / "bf16")
    again = tmp_path / "again"
    again.mkdir()
    for path in (tmp_path / "bf16").iterdir():
        (again / path.name).write_bytes(path.read_bytes())
    save_file({name: each.float() for name, each in first.items()}, again / "model.safetensors")
    second = build(again, tmp_path / "out")
    assert all(torch.equal(second[name], first[name]) for name in first)


def write_vision_language(folder: Path, family: str, prefix: str) -> dict[str, torch.Tensor]:
    """Write a checkpoint of the family with a vision tower; return its text model's tensors."""
    write_family(folder, family)
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    head = "language_model.lm_head" if prefix == MISTRAL_PREFIX else "lm_head"
    published = {
        name.replace("model.", prefix, 1).replace("lm_head", head): tensor
        for name, tensor in tensors.items()
    }
    published["vision_tower.vision_model.head.weight"] = torch.ones(3)
    save_file(published, folder / "model.safetensors")
    text_config = json.loads((folder / "config.json").read_text())
    tied = {"tie_word_embeddings": text_config.pop("tie_word_embeddings")}
    config = tied | {"model_type": "other", "text_config": text_config, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    return tensors


@pytest.mark.parametrize("prefix", [MISTRAL_PREFIX, TRANSFORMERS_PREFIX, "model."])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_read_and_loaded(tmp_path: Path, family: str, prefix: str) -> None:
    if prefix == "model.":
        write_family(tmp_path / "base", family)
        expected = load_file(tmp_path / "base" / "model.safetensors")
    else:
        expected = write_vision_language(tmp_path / "base", family, prefix)
    found = build(tmp_path / "base", tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.architectures == [type(model).__name__]
    loaded = model.state_dict()
    assert loaded.keys() - found.keys() <= {"lm_head.weight"}
    assert all(torch.equal(loaded[name], found[name]) for name in found)


@pytest.mark.parametrize("family", DEFAULTS)
def test_what_a_config_leaves_out_is_what_transformers_would_put_in(family: str) -> None:
    config = AutoConfig.for_model(family)
    assert {key: getattr(config, key) for key in DEFAULTS[family]} == DEFAULTS[family]
    made = make_text_config({"model_type": family}, {}, has_head=True)
    assert {key: made[key] for key in DEFAULTS[family]} == DEFAULTS[family]


def test_the_text_config_of_a_text_only_checkpoint_is_its_own(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    build(tmp_path / "base", tmp_path / "out")
    build(tmp_path / "out", tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_embeddings_that_are_held_twice_are_written_once(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    tensors = make_base_tensors()
    tensors["language_model.lm_head.weight"] = tensors[
        f"{MISTRAL_PREFIX}embed_tokens.weight"
    ].clone()
    write_shards(tmp_path / "base", tensors, 3)
    change_config(tmp_path / "base", lambda config: config.update(tie_word_embeddings=True))
    found = build(tmp_path / "base", tmp_path / "out")
    assert "lm_head.weight" not in found
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is True


def change_config(base: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((base / "config.json").read_text())
    change(config)
    (base / "config.json").write_text(json.dumps(config))


def spoil_truncated(base: Path) -> None:
    shard = base / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-7])


def spoil_layers(base: Path) -> None:
    change_config(base, lambda config: config["text_config"].update(num_hidden_layers=3))


def spoil_size(base: Path) -> None:
    change_config(base, lambda config: config["text_config"].update(intermediate_size=512))


def spoil_family(base: Path) -> None:
    change_config(base, lambda config: config["text_config"].update(model_type="gemma4"))


def spoil_quantization(base: Path) -> None:
    change_config(base, lambda config: config["quantization_config"].update(quant_method="awq"))


def spoil_tie(base: Path) -> None:
    change_config(base, lambda config: config.update(tie_word_embeddings=True))


def spoil_template(base: Path) -> None:
    (base / "chat_template.jinja").unlink()


def spoil_split(base: Path) -> None:
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\d|\D+"
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))


def spoil_block_scales(base: Path) -> None:
    tensors = make_base_tensors()
    name = "language_model.model.layers.1.mlp.up_proj.weight_scale_inv"
    write_shards(base, tensors | {name: torch.ones(2, 2).bfloat16()}, 3)


def spoil_lost_scale(base: Path) -> None:
    tensors = make_base_tensors()
    name = "language_model.model.layers.1.mlp.up_proj.weight_scale_inv"
    write_shards(base, tensors | {name: torch.tensor(1.0).bfloat16()}, 3)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_truncated, ["truncated", "model-00002-of-00003.safetensors"]),
        (spoil_layers, ["not those of the config", "model.layers.2.input_layernorm.weight"]),
        (spoil_size, ["not of the config's size", "(256, 256)", "(512, 256)"]),
        (spoil_family, ["family is not supported", "gemma4"]),
        (spoil_quantization, ["quant_method awq"]),
        (spoil_tie, ["tie_word_embeddings is True", "lm_head.weight is there"]),
        (spoil_template, ["no chat template", "chat_template.jinja"]),
        (spoil_split, ["way to split text", "pre_tokenizer"]),
    ],
)
def test_a_bad_base_is_refused_before_anything_is_written(
    tmp_path: Path, spoil: Callable[[Path], None], words: list[str]
) -> None:
    write_base(tmp_path / "base")
    spoil(tmp_path / "base")
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError) as error:
        text.run({"base": tmp_path / "base"}, OPTIONS, tmp_path / "out")
    for word in words:
        assert word in str(error.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_chosen_template_needs_none_of_the_base(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    spoil_template(tmp_path / "base")
    (tmp_path / "out").mkdir()
    source = BUILT_IN["mistral-v13"]
    options = replace(OPTIONS, chat_template=source)
    text.run({"base": tmp_path / "base"}, options, tmp_path / "out")
    assert (tmp_path / "out" / "chat_template.jinja").read_text(encoding="utf-8") == source


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_block_scales, "scale of a form that is not supported"),
        (spoil_lost_scale, "a weight is not sane"),
    ],
)
def test_bad_scales_are_refused(tmp_path: Path, spoil: Callable[[Path], None], words: str) -> None:
    write_base(tmp_path / "base")
    spoil(tmp_path / "base")
    with pytest.raises(StageError, match=words):
        build(tmp_path / "base", tmp_path / "out")
