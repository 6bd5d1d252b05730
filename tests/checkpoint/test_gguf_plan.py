"""What the host plans is what the image writes: names, shapes, sizes."""

import ctypes
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
import torch

from pipeline.checkpoint import gguf, shard_plan, text
from pipeline.checkpoint.gguf_layout import Form, Layout, Source, write_header
from pipeline.checkpoint.llama_source import import_gguf
from pipeline.checkpoint.shard_plan import count_checkpoint_bytes
from pipeline.checkpoint.shards import write_checkpoint
from pipeline.checkpoint.text_config import read_config
from pipeline.checkpoint.text_tensors import DEFAULTS, FAMILIES, list_gguf_shapes
from pipeline.checkpoint.weights import open_weights, write_small_files
from pipeline.engine.environment import read_envs_dir
from pipeline.estimate.base_config import read_config as read_base_config
from pipeline.estimate.gguf_size import list_tensors, sum_tensor_bytes
from pipeline.estimate.serving import count_cache_bytes, count_compute_bytes
from pipeline.estimate.shape import parse_shape
from pipeline.estimate.text_size import count_text_bytes
from pipeline.gguf_types import parse_override
from pipeline.serve.capacity import read_shape
from pipeline.serve.gguf_file import read_gguf
from tests import locked, tekken
from tests.checkpoint import tiny_families
from tests.checkpoint.planned_size import plan_gguf

pytestmark = pytest.mark.convert


def test_every_family_is_known_to_both() -> None:
    assert set(tiny_families.FAMILIES) == set(FAMILIES)


def test_a_config_without_what_its_class_knows_has_the_same_tensors() -> None:
    config: dict[str, Any] = {
        "model_type": "gemma3_text",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
    }
    shape = parse_shape(config, on="config.json")
    whole = {**DEFAULTS["gemma3_text"], **config, "tie_word_embeddings": True}
    assert list_tensors(shape) == list_gguf_shapes(whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_is_as_large_as_planned(tmp_path: Path, family: str) -> None:
    tiny_families.write_family(tmp_path / "base", family)
    config = read_config(tmp_path / "base" / "config.json")
    shape = parse_shape(config, on="config.json")
    for file_type, asked in [("Q4_K_M", ()), ("Q3_K_L", ("attn_q=Q8_0",)), ("F16", ())]:
        (tmp_path / file_type).mkdir()
        options = gguf.Options(type=file_type, model_name="x", tensor_types=asked, chat_template="")
        gguf.run({"base": tmp_path / "base"}, options, tmp_path / file_type)
        reader = import_gguf().GGUFReader(tmp_path / file_type / gguf.GGUF)
        found = {each.name: tuple(reversed(each.shape.tolist())) for each in reader.tensors}
        assert found == list_tensors(shape)
        size = (tmp_path / file_type / gguf.GGUF).stat().st_size - reader.data_offset
        assert size == sum_tensor_bytes(shape, file_type, [parse_override(each) for each in asked])


@pytest.mark.parametrize("family", ["ministral3", "gemma3_text"])
def test_the_text_model_is_as_large_as_planned(tmp_path: Path, family: str) -> None:
    tiny_families.write_family(tmp_path / "base", family, num_hidden_layers=1)
    (tmp_path / "text").mkdir()
    text.run(
        {"base": tmp_path / "base"},
        text.Options(cpu_threads=1, chat_template=""),
        tmp_path / "text",
    )
    config = read_base_config(str(tmp_path / "base"))
    planned = count_text_bytes(config, parse_shape(config.config, on="config.json"))
    assert planned == sum(path.stat().st_size for path in (tmp_path / "text").iterdir())


def test_several_shards_and_their_index_are_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_plan, "SHARD_BYTES", 1000)
    shapes = {f"w{n}": (n + 1, 100) for n in range(12)}
    write_checkpoint(
        tmp_path,
        shapes,
        lambda name, start, stop: torch.zeros((stop - start, 100), dtype=torch.bfloat16),
        shard_bytes=1000,
    )
    found = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) > 10
    assert count_checkpoint_bytes(shapes) == found


def read_header_size(base: Path, folder: Path, file_type: str) -> int:
    """Return the size that the converter's header gives to the file; no tensor is written."""
    small = folder / "model"
    small.mkdir(exist_ok=True)
    write_small_files(base, small)
    source = Source(weights=open_weights(base), directory=small)
    layout = write_header(source, Form(type=file_type, model_name="Größe"), folder / "header.gguf")
    assert isinstance(layout, Layout)
    return layout.size_bytes


def edit_json(path: Path, **changes: Any) -> None:
    document = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(document | changes))


def add_generation(base: Path) -> None:
    values = {"temperature": 0.15, "top_p": 0.95, "top_k": 20, "repetition_penalty": 1.1}
    edit_json(base / "generation_config.json", **values, eos_token_id=[2, 3])


def scale_rope(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    config.pop("rope_parameters", None)
    config |= {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    (base / "config.json").write_text(json.dumps(config))


def leave_out_defaults(base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    # Qwen 3's class has a head size of its own.
    sizes = ("num_key_value_heads", *(("head_dim",) if config["model_type"] == "llama" else ()))
    for key in (*sizes, "max_position_embeddings", "rope_parameters"):
        config.pop(key, None)
    (base / "config.json").write_text(json.dumps(config))


def move_template(base: Path) -> None:
    """Into tokenizer_config.json, as older checkpoints have it; with a token that ends turns."""
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    edit_json(base / "tokenizer_config.json", chat_template=template + "é", add_bos_token=True)


def end_with_another_token(base: Path) -> None:
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    special = {"id": "[/INST]", "type_id": 0}
    tokenizer["post_processor"]["single"].append({"SpecialToken": special})
    entry = {"id": "[/INST]", "ids": [4], "tokens": ["[/INST]"]}
    tokenizer["post_processor"]["special_tokens"]["[/INST]"] = entry
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))


CHANGES = [
    add_generation,
    scale_rope,
    leave_out_defaults,
    move_template,
    end_with_another_token,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_other_configs_and_tokenizers_are_planned(
    tmp_path: Path, family: str, change: Callable[[Path], None]
) -> None:
    sizes = {"num_key_value_heads": 4} if change is leave_out_defaults else {}
    tiny_families.write_family(tmp_path / "base", family, num_hidden_layers=1, **sizes)
    change(tmp_path / "base")
    planned = plan_gguf(tmp_path / "base", "Q6_K", name="Größe")
    assert planned.size_bytes == read_header_size(tmp_path / "base", tmp_path, "Q6_K")
    assert planned.is_exact


def test_entries_beyond_the_tokenizers_are_planned(tmp_path: Path) -> None:
    tiny_families.write_family(tmp_path / "base", "qwen3", num_hidden_layers=1, vocab_size=640)
    planned = plan_gguf(tmp_path / "base", "BF16", name="Größe")
    assert planned.size_bytes == read_header_size(tmp_path / "base", tmp_path, "BF16")


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_a_published_sentencepiece_vocabulary_is_planned(tmp_path: Path, family: str) -> None:
    """Mistral's, of 32,768 entries."""
    base = tmp_path / "base"
    tiny_families.write_family(base, family, num_hidden_layers=1, vocab_size=32768)
    (base / "tokenizer.json").unlink()
    folder = locked.find_packages(tekken.LOCK, read_envs_dir())
    data = folder / "mistral_common" / "data"
    shutil.copy(data / "mistral_instruct_tokenizer_240323.model.v3", base / "tokenizer.model")
    added = {"7": {"content": "[NEW]\u2581x", "special": False}}
    edit_json(base / "tokenizer_config.json", added_tokens_decoder=added)
    planned = plan_gguf(base, "Q8_0", name="Größe")
    assert planned.size_bytes == read_header_size(base, tmp_path, "Q8_0")
    assert planned.is_exact


@pytest.mark.parametrize("family", FAMILIES)
def test_a_server_is_held_against_the_memory_that_was_planned(tmp_path: Path, family: str) -> None:
    tiny_families.write_family(tmp_path / "base", family)
    planned = parse_shape(read_config(tmp_path / "base" / "config.json"), on="config.json")
    options = gguf.Options(type="Q4_K_M", model_name="x", tensor_types=(), chat_template="")
    gguf.run({"base": tmp_path / "base"}, options, tmp_path)
    file = read_gguf(tmp_path / gguf.GGUF)
    read = read_shape(file)
    assert read is not None
    assert read.tied == planned.tied
    assert count_compute_bytes(read) == count_compute_bytes(planned)
    assert sum(file.tensor_bytes.values()) == sum_tensor_bytes(planned, "Q4_K_M", [])
    for context in (256, 4096, 100_000):
        asked = {"context": context, "parallel": 2}
        assert count_cache_bytes(read, "F16", **asked) == count_cache_bytes(planned, "F16", **asked)


@pytest.mark.parametrize("cache_type", ["F16", "Q8_0"])
@pytest.mark.parametrize("family", ["ministral3", "gemma3_text"])
def test_the_cache_is_as_large_as_planned(tmp_path: Path, family: str, cache_type: str) -> None:
    """By what llama.cpp itself says of it, in MiB and two places."""
    tiny_families.write_family(tmp_path / "base", family)
    shape = parse_shape(read_config(tmp_path / "base" / "config.json"), on="config.json")
    options = gguf.Options(type="Q8_0", model_name="x", tensor_types=(), chat_template="")
    gguf.run({"base": tmp_path / "base"}, options, tmp_path)
    said: list[str] = []
    listen = llama_cpp.llama_log_callback(lambda level, text, data: said.append(text.decode()))
    llama_cpp.llama_log_set(listen, ctypes.c_void_p(0))
    number = int(import_gguf().GGMLQuantizationType[cache_type])
    llama = llama_cpp.Llama(
        model_path=str(tmp_path / gguf.GGUF),
        n_ctx=1000,
        n_ubatch=512,
        type_k=number,
        type_v=number,
        flash_attn=True,
        swa_full=False,
        verbose=True,
    )
    llama.close()
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    found = [float(each) for each in re.findall(r"KV buffer size = +([\d.]+) MiB", "".join(said))]
    planned = count_cache_bytes(shape, cache_type, context=1000, parallel=1)
    assert found
    assert sum(found) == pytest.approx(planned / (1 << 20), abs=0.02)


_silence = llama_cpp.llama_log_callback(lambda level, text, data: None)
