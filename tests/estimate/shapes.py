"""Shapes of published models, and forms of training, for the tests of sizes."""

from dataclasses import replace
from typing import Any

from pipeline.estimate.base_config import find_config
from pipeline.estimate.shape import Shape, parse_shape
from pipeline.estimate.training import TrainingForm
from pipeline.sft.names import PROJECTIONS

DEVSTRAL, MISTRAL_22B = "Devstral-Small-2-24B-Instruct-2512", "Mistral-Small-Instruct-2409"


def read_shipped_shape(name: str) -> Shape:
    """Return the shape of a model whose config.json is shipped."""
    config = find_config(f"hf://mistralai/{name}")
    assert config is not None
    return parse_shape(config.config, on=config.on)


FORM = TrainingForm(
    method="qlora",
    rank=16,
    target_modules=PROJECTIONS,
    batch_size=1,
    accumulation=4,
    sequence=2048,
    optimizer="adamw",
    checkpointing=True,
    offloads=False,
    on_gpu=True,
)


def make_form(**changes: Any) -> TrainingForm:
    """Return the flagship's training with these changes."""
    return replace(FORM, **changes)
