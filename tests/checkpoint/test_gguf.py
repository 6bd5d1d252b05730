"""Conversion and quantization end in a file that the gate has read back; the gate can fail."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint import gguf, quantized, text
from pipeline.checkpoint.gguf_check import check_gguf
from pipeline.checkpoint.llama_source import import_gguf, run_tool
from pipeline.checkpoint.pre_tokenizer import check_pre_tokenizer, find_split
from pipeline.errors import StageError
from tests.checkpoint.tiny_base import write_base

pytestmark = pytest.mark.convert


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `text` and its `gguf`."""
    root = tmp_path_factory.mktemp("gguf")
    write_base(root / "base")
    for name in ("text", "gguf"):
        (root / name).mkdir()
    text.run({"base": root / "base"}, text.Options(cpu_threads=1), root / "text")
    gguf.run({"merged": root / "text"}, gguf.Options(model_name="Tiny 7B"), root / "gguf")
    return root


def read_value(path: Path, key: str) -> Any:
    return import_gguf().GGUFReader(path).get_field(key).contents()


def test_the_name_is_the_one_that_was_asked_for(root: Path) -> None:
    path = root / "gguf" / "model.gguf"
    assert read_value(path, "general.architecture") == "mistral3"
    assert read_value(path, "general.name") == "Tiny 7B"
    assert read_value(path, "tokenizer.ggml.pre") == "tekken"
    assert import_gguf().GGUFReader(path).get_field("general.basename") is None


def test_the_bytes_do_not_depend_on_the_directory(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "Llama-3-8B-Instruct-v2"
    shutil.copytree(root / "text", place)
    (tmp_path / "out").mkdir()
    gguf.run({"merged": place}, gguf.Options(model_name="Tiny 7B"), tmp_path / "out")
    again = (tmp_path / "out" / "model.gguf").read_bytes()
    assert again == (root / "gguf" / "model.gguf").read_bytes()


@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_K_M"])
def test_quantized_files_pass_the_gate(root: Path, tmp_path: Path, file_type: str) -> None:
    inputs = {"gguf": root / "gguf", "merged": root / "text"}
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        quantized.run(inputs, quantized.Options(type=file_type), tmp_path / name)
        files.append((tmp_path / name / "model.gguf").read_bytes())
    assert files[0] == files[1]
    assert len(files[0]) < (root / "gguf" / "model.gguf").stat().st_size
    found = {
        each.name: each.tensor_type.name
        for each in import_gguf().GGUFReader(tmp_path / "one" / "model.gguf").tensors
    }
    assert found["blk.0.attn_q.weight"] == ("Q8_0" if file_type == "Q8_0" else "Q4_K")
    assert found["blk.0.attn_norm.weight"] == "F32"


def test_a_tool_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="llama-quantize failed"):
        run_tool("llama-quantize", str(tmp_path / "none.gguf"), str(tmp_path / "o.gguf"), "Q8_0")


def change(folder: Path, name: str, edit: Callable[[dict[str, Any]], object]) -> None:
    value = json.loads((folder / name).read_text())
    edit(value)
    (folder / name).write_text(json.dumps(value))


def other_layers(folder: Path) -> None:
    change(folder, "config.json", lambda value: value.update(num_hidden_layers=3))


def other_size(folder: Path) -> None:
    change(folder, "config.json", lambda value: value.update(intermediate_size=512))


def other_family(folder: Path) -> None:
    change(folder, "config.json", lambda value: value.update(model_type="mistral"))


def other_rope(folder: Path) -> None:
    change(folder, "config.json", lambda value: value["rope_parameters"].update(mscale_all_dim=0.5))


def other_eos(folder: Path) -> None:
    change(folder, "config.json", lambda value: value.update(eos_token_id=5))


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ bos_token }}")


def other_merges(folder: Path) -> None:
    change(
        folder,
        "tokenizer.json",
        lambda value: value["model"].update(merges=[], ignore_merges=False),
    )


@pytest.mark.parametrize(
    ("spoil", "on"),
    [
        (other_layers, "tensor blk.2.attn_k.weight"),
        (other_size, "tensor blk.0.ffn_down.weight"),
        (other_family, "general.architecture"),
        (other_rope, "mistral3.rope.scaling.yarn_log_multiplier"),
        (other_eos, "tokenizer.ggml.eos_token_id"),
        (other_template, "tokenizer.chat_template"),
        (other_merges, "token ids of"),
    ],
)
def test_the_gate_refuses_a_file_of_another_checkpoint(
    root: Path, tmp_path: Path, spoil: Callable[[Path], None], on: str
) -> None:
    shutil.copytree(root / "text", tmp_path / "text")
    spoil(tmp_path / "text")
    with pytest.raises(StageError) as error:
        check_gguf(root / "gguf" / "model.gguf", tmp_path / "text", "BF16")
    assert error.value.on.startswith(on)


def test_the_gate_refuses_another_file_type(root: Path) -> None:
    with pytest.raises(StageError, match=r"general\.file_type"):
        check_gguf(root / "gguf" / "model.gguf", root / "text", "Q8_0")


def edit_pattern(value: dict[str, Any]) -> None:
    value["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] += "|x"


def edit_space(value: dict[str, Any]) -> None:
    value["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def edit_second_split(value: dict[str, Any]) -> None:
    value["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = True


@pytest.mark.parametrize("edit", [edit_pattern, edit_space, edit_second_split])
def test_only_the_exact_split_is_known(
    root: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    shutil.copytree(root / "text", tmp_path / "text")
    assert find_split(tmp_path / "text") == "tekken"
    change(tmp_path / "text", "tokenizer.json", edit)
    assert find_split(tmp_path / "text") is None
    with pytest.raises(StageError, match="way to split text"):
        check_pre_tokenizer(tmp_path / "text")
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="way to split text"):
        gguf.run({"merged": tmp_path / "text"}, gguf.Options(model_name="x"), tmp_path / "out")
