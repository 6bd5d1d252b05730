"""Out of memory is answered with what to lower, and each change does lower the plan's model."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from pipeline.errors import StageError
from pipeline.estimate.shape import Shape
from pipeline.sft import memory
from pipeline.sft.memory import answer_out_of_memory, list_changes
from tests.sft.training import OPTIONS

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

_FLAGSHIP = Shape(
    layers=40,
    hidden=5120,
    ffn=32768,
    heads=32,
    kv_heads=8,
    head_dim=128,
    vocabulary=131072,
    tied=False,
    architecture="mistral3",
    norms=(("attn_norm", "H"), ("ffn_norm", "H")),
    frequencies=0,
)


def test_a_full_host_is_answered_with_changes(text: Path, dataset: Path) -> None:
    options = dataclasses.replace(OPTIONS, batch_size=8)
    with (
        pytest.raises(StageError, match="memory is full") as caught,
        answer_out_of_memory(text, dataset, options),
    ):
        torch.empty(1 << 60)  # no host has that much: what the allocator says is its own
    assert "can't allocate memory" in caught.value.on
    assert "by the plan's model this takes" in caught.value.why
    assert "train.batch_size = 4 and train.gradient_accumulation = 4" in caught.value.then


def test_a_full_gpu_is_answered_too(text: Path, dataset: Path) -> None:
    with (
        pytest.raises(StageError, match="memory is full") as caught,
        answer_out_of_memory(text, dataset, OPTIONS),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.87 GiB.")
    assert "Tried to allocate 1.87 GiB" in caught.value.on


def test_another_error_stays_what_it_is(text: Path, dataset: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="shapes"),
        answer_out_of_memory(text, dataset, OPTIONS),
    ):
        raise RuntimeError("the shapes do not fit")


def test_what_keeps_the_result_comes_first_and_says_what_it_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "on_gpu", lambda: True)
    options = dataclasses.replace(
        OPTIONS, method="lora", rank=64, batch_size=2, gradient_checkpointing=True
    )
    changes = list_changes(_FLAGSHIP, options, 4096)
    assert changes[0].startswith("train.batch_size = 1 and train.gradient_accumulation = 4: ")
    saved = {
        each.split(" = ")[0]: float(found[1])
        for each in changes
        if (found := re.search(r": ([\d.]+) GB less$", each))
    }
    assert len(saved) == len(changes)
    # NF4 instead of BF16: 22.2 billion weights at 0.516 instead of 2 bytes.
    assert saved["train.method"] == pytest.approx(33.0, abs=0.5)
    assert saved["dataset.sequence_length"] == saved["train.batch_size"]
    assert saved["train.rank"] > 0
