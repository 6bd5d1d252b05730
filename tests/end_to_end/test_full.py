"""Weights that are trained whole go the same way: training -> checkpoint -> GGUF, no adapter."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.engine.environment import read_envs_dir
from pipeline.engine.venv import python_of
from tests.end_to_end.tiny_build import RECIPE, Build, read_json

pytestmark = pytest.mark.train

_CHANGES = (
    ('method = "lora"\nrank = 16\nalpha = 32', 'method = "full"'),
    ("learning_rate = 3e-3", "learning_rate = 1e-3"),
    ("max_steps = 200", "max_steps = 60"),
    ('types = ["BF16", "Q8_0", "Q4_K_M"]', 'types = ["BF16"]'),
    ("[serve]\n", '[serve]\ntype = "BF16"\n'),
)


def _read_gguf_tensors(path: Path) -> dict[str, Any]:
    llama = python_of("convert", read_envs_dir()).parents[1] / "llama"
    sys.path.insert(0, str(llama / "src" / "gguf-py"))
    try:
        from gguf import GGUFReader

        return {each.name: each.data for each in GGUFReader(path).tensors}
    finally:
        sys.path.pop(0)


def test_a_checkpoint_that_was_trained_whole_is_the_gguf_s_base(
    built: Build, tmp_path: Path
) -> None:
    text = RECIPE.read_text()
    for old, new in _CHANGES:
        assert old in text
        text = text.replace(old, new)
    recipe = tmp_path / "whole.toml"
    recipe.write_text(text)
    told = built.run("build", "trained", "gguf", recipe=recipe)
    assert told.returncode == 0, told.stderr
    tuned = built.find("tuned")
    metrics = read_json(tuned / "metrics.json")
    assert metrics["loss_after"] < 0.5 * metrics["loss_before"]
    tensors = load_file(tuned / "model.safetensors")
    assert metrics["trainable_parameters"] == sum(each.numel() for each in tensors.values())
    written = _read_gguf_tensors(built.find("gguf-BF16") / "model.gguf")
    ours = tensors["model.layers.0.mlp.down_proj.weight"]
    assert written["blk.0.ffn_down.weight"].tobytes() == ours.view(torch.uint8).numpy().tobytes()
