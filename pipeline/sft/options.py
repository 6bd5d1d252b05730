"""What the recipe says of training, as the stage reads it.

All of it may change the bytes, except what the key does not hold: `report_to`, names of reporters,
with commas between, and where the processes are: on `hosts`, which meet at `address`, this being
number `host` of them. `deepspeed` is the text of its configuration.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Options:
    """The fields of [train], by their names; `recipes/reference.toml` documents each."""

    method: str
    rank: int
    alpha: float
    rslora: bool
    init: str
    dropout: float
    target_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    learning_rate: float
    embedding_learning_rate: float
    warmup_steps: int
    schedule: str
    optimizer: str
    weight_decay: float
    neftune_alpha: float
    batch_size: int
    gradient_accumulation: int
    gradient_checkpointing: bool
    activation_offload: bool
    pack_tokens: int
    max_steps: int
    epochs: float
    max_grad_norm: float
    seed: int
    eval_rows: int
    checkpoint_steps: int
    patience: int
    best_by: str
    processes: int
    sharding: str
    deepspeed: str
    cpu_threads: int
    report_to: str
    hosts: str
    host: str
    address: str
