"""The stage ends in a file that the gates have read back; the gates can fail."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import gguf, gguf_layout, gguf_stream, text
from pipeline.checkpoint.gguf_check import Checked, check_gguf
from pipeline.checkpoint.gguf_logits import check_logits
from pipeline.checkpoint.llama_source import import_conversion, import_gguf, run_tool
from pipeline.checkpoint.pre_tokenizer import check_pre_tokenizer, find_split
from pipeline.checkpoint.weights import open_weights
from pipeline.errors import StageError
from tests.checkpoint import classic_chain
from tests.checkpoint.tiny_base import write_base

pytestmark = pytest.mark.convert

NAME = "Tiny 7B"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `base`, its `text` and its `gguf` in BF16."""
    root = tmp_path_factory.mktemp("gguf")
    write_base(root / "base")
    (root / "text").mkdir()
    text.run({"base": root / "base"}, text.Options(chat_template="", cpu_threads=1), root / "text")
    run(root / "base", root / "gguf")
    return root


def run(base: Path, out: Path, file_type: str = "BF16") -> Path:
    out.mkdir()
    options = gguf.Options(type=file_type, model_name=NAME, tensor_types=(), chat_template="")
    gguf.run({"base": base}, options, out)
    return out / gguf.GGUF


def read_value(path: Path, key: str) -> Any:
    return import_gguf().GGUFReader(path).get_field(key).contents()


def test_the_name_is_the_one_that_was_asked_for(root: Path) -> None:
    path = root / "gguf" / "model.gguf"
    assert read_value(path, "general.architecture") == "mistral3"
    assert read_value(path, "general.name") == NAME
    assert read_value(path, "tokenizer.ggml.pre") == "tekken"
    assert import_gguf().GGUFReader(path).get_field("general.basename") is None


@pytest.mark.parametrize("file_type", ["BF16", "Q8_0"])
def test_what_was_checked_is_recorded(root: Path, tmp_path: Path, file_type: str) -> None:
    """Without what was measured: that differs between CPUs, and these bytes may not."""
    checks = run(root / "base", tmp_path / "out", file_type).parent / gguf.CHECKS
    logits = {"nmse_below": 1e-3, "prompts": 3} if file_type == "BF16" else None
    expected = {
        "architecture": "mistral3",
        "file_type": file_type,
        "logits": logits,
        "tensors": 2 * 9 + 3,
        "tokenizer": {"equal_texts": 6, "known_differences": []},
    }
    assert json.loads(checks.read_text()) == expected
    assert checks.read_text() == json.dumps(expected, indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("file_type", ["BF16", "Q4_K_M"])
def test_a_published_checkpoint_and_its_text_model_give_the_same_bytes(
    root: Path, tmp_path: Path, file_type: str
) -> None:
    """Wherever they lie: the converter would take a name from the directory."""
    place = tmp_path / "Llama-3-8B-Instruct-v2"
    shutil.copytree(root / "text", place)
    (tmp_path / "model").symlink_to(place)
    expected = tmp_path / "expected.gguf"
    classic_chain.convert(tmp_path / "model", expected, "BF16", NAME)
    if file_type != "BF16":
        expected = expected.rename(tmp_path / "BF16.gguf")
        classic_chain.quantize(expected, tmp_path / "expected.gguf", file_type)
    for base in (root / "base", place):
        found = run(base, tmp_path / f"out-{base.name}", file_type)
        assert found.read_bytes() == (tmp_path / "expected.gguf").read_bytes()


def test_workers_and_slabs_change_no_byte(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_stream, "SLAB_ELEMENTS", 1 << 13)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(5))
    again = run(root / "base", tmp_path / "out").read_bytes()
    assert again == (root / "gguf" / "model.gguf").read_bytes()


def scale_rows(
    self: Any, data: torch.Tensor, name: str, bid: int | None, upstream: Any
) -> list[tuple[str, torch.Tensor]]:
    """A converter that does more to a weight than to reorder its rows."""
    return [
        (new, each * 2 if "down" in new else each) for new, each in upstream(self, data, name, bid)
    ]


def split_rows(
    self: Any, data: torch.Tensor, name: str, bid: int | None, upstream: Any
) -> list[tuple[str, torch.Tensor]]:
    """A converter that makes two tensors of one."""
    ((new, each),) = upstream(self, data, name, bid)
    half = len(each) // 2
    return [(new, each[:half]), (f"{new}.rest", each[half:])] if "gate" in new else [(new, each)]


@pytest.mark.parametrize("change", [scale_rows, split_rows])
def test_what_is_not_covered_goes_through_the_converter_itself(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any
) -> None:
    model = import_conversion().get_model_class("LlamaForCausalLM")
    upstream = model.modify_tensors
    monkeypatch.setattr(
        model, "modify_tensors", lambda *arguments: change(*arguments, upstream=upstream)
    )
    checked = Checked(architecture="mistral3", tensors=21, texts=6, differences=())
    monkeypatch.setattr(gguf, "check_gguf", lambda *arguments: checked)
    said: list[str] = []
    monkeypatch.setattr(gguf, "say", said.append)
    (tmp_path / "model").symlink_to(root / "text")
    classic_chain.convert(tmp_path / "model", tmp_path / "BF16.gguf", "BF16", NAME)
    classic_chain.quantize(tmp_path / "BF16.gguf", tmp_path / "expected.gguf", "Q8_0")
    found = run(root / "base", tmp_path / "out", "Q8_0")
    assert found.read_bytes() == (tmp_path / "expected.gguf").read_bytes()
    assert "not streamed" in said[0]
    assert sorted(path.name for path in found.parent.iterdir()) == [gguf.CHECKS, gguf.GGUF]


def test_an_order_that_reaches_too_far_is_not_streamed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = gguf_layout.Layout(
        targets=(
            gguf_layout.Target(
                name="a",
                shape=(4096, 1 << 15),
                type="BF16",
                source="a",
                rows=torch.arange(4096).flip(0).numpy(),
            ),
        ),
        size_bytes=0,
    )
    assert gguf_stream.covers(layout)
    far = torch.arange(4096).reshape(2, 2048).T.flatten().numpy()
    (target,) = layout.targets
    target = replace(target, rows=far)
    assert not gguf_stream.covers(replace(layout, targets=(target,)))


def test_no_number_of_cores_takes_more_memory_than_the_most_workers(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def note(layout: Any, weights: Any, path: Path, workers: int) -> None:
        asked.append(workers)
        gguf_stream.stream(layout, weights, path, workers)

    monkeypatch.setattr(gguf, "stream", note)
    for cores in (1, 16, 192):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: range(cores))
        run(root / "base", tmp_path / str(cores), "Q8_0")
    assert asked == [1, 16, 16]


def test_a_full_disk_is_said_before_the_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(gguf_stream, "_make_bytes", None)
    with pytest.raises(OSError, match="No space left"):
        run(root / "base", tmp_path / "out")


def test_a_failing_worker_ends_the_stage(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file_type: str, rows: Any, weights: Any) -> None:
        raise StageError("no", on="rows", why="because", then="nothing")

    monkeypatch.setattr(gguf_stream, "quantize", fail)
    with pytest.raises(StageError, match="because"):
        run(root / "base", tmp_path / "out", "Q8_0")


def other_theta(folder: Path) -> None:
    change(folder, "config.json", lambda value: value["rope_parameters"].update(rope_theta=100.0))


def other_layer(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.self_attn.q_proj.weight"
    tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("spoil", [other_theta, other_layer])
def test_the_gate_refuses_other_logits(
    root: Path, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    shutil.copytree(root / "text", tmp_path / "text")
    check_logits(root / "gguf" / "model.gguf", open_weights(tmp_path / "text"), tmp_path / "text")
    spoil(tmp_path / "text")
    with pytest.raises(StageError, match="does not answer as the checkpoint"):
        check_logits(
            root / "gguf" / "model.gguf", open_weights(tmp_path / "text"), tmp_path / "text"
        )


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
    with pytest.raises(StageError, match="way to split text"):
        run(tmp_path / "text", tmp_path / "out")
