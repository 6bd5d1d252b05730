"""What bench.train measures: one model, its rows and its settings. Standard library alone."""

from dataclasses import dataclass
from typing import Any

WARM_STEPS = 3  # that do not count


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained: `text_config` of the model, rows of `tokens`, so many of them to a step.

    `method` "lora" is a float32 base, "qlora" one in NF4. `memory_bytes` caps the GPU's, 0 nothing.
    `activation_offload`: what is kept for the backward pass waits in the host's memory.
    """

    text_config: dict[str, Any]
    method: str
    rank: int
    tokens: int
    batch_size: int
    gradient_accumulation: int
    steps: int
    threads: int
    memory_bytes: int
    activation_offload: bool = False
