"""[train] of a recipe: the method, its settings and what trains. Standard library alone."""

from dataclasses import dataclass, fields
from pathlib import Path

from pipeline.recipe.checkpoint import BEST_BY, EPOCH, LAST, STEP, parse_checkpoint
from pipeline.recipe.processes import find_process_contradictions
from pipeline.recipe.setting import setting as _setting
from pipeline.sft.names import (
    ADAMW,
    EMBEDDINGS,
    FULL,
    INITS,
    LOFTQ,
    LORA,
    METHODS,
    NONE,
    OPTIMIZERS,
    PAGED_ADAMW_8BIT,
    PISSA,
    PROJECTIONS,
    QLORA,
    SHARDINGS,
    ZERO,
)

# The artifacts that training may be for.
RESULTS = ("adapter", "tuned")
REPORTERS = ("tensorboard", "wandb", "mlflow")
# What only an adapter has.
_OF_ADAPTER = ("rank", "alpha", "rslora", "init", "dropout", "target_modules")


@dataclass(frozen=True, kw_only=True)
class Train:
    method: str = _setting(
        "lora (adapter on a 16-bit base), qlora (adapter on an NF4 4-bit base), or full (every"
        " weight, in 32 bits). Any of them continues pretraining where the rows are plain text.",
        QLORA,
        choices=METHODS,
    )
    rank: int = _setting("LoRA rank r.", 16, low=1, high=1024)
    alpha: float = _setting("LoRA alpha; the update is scaled by alpha / rank.", 16.0, low=0.0)
    rslora: bool = _setting("Scale by alpha / sqrt(rank) instead (rank-stabilised LoRA).", False)
    init: str = _setting(
        "Start of the adapter: zero (B zero, A uniform), gaussian (B zero, A normal), pissa (the"
        " largest singular values, for lora), loftq (what NF4 has lost, for qlora).",
        ZERO,
        choices=INITS,
    )
    dropout: float = _setting("LoRA dropout.", 0.0, low=0.0, high=0.9)
    target_modules: tuple[str, ...] = _setting(
        "Projections that get an adapter.", PROJECTIONS, choices=PROJECTIONS
    )
    modules_to_save: tuple[str, ...] = _setting(
        "What is trained whole beside the adapter.", (), choices=EMBEDDINGS, may_be_empty=True
    )
    learning_rate: float = _setting("Peak learning rate of AdamW.", 1e-4, low=0.0, high=1.0)
    embedding_learning_rate: float = _setting(
        "Peak learning rate of the embeddings and the output head where they are trained; 0 is"
        " learning_rate.",
        0.0,
        low=0.0,
        high=1.0,
    )
    warmup_steps: int = _setting("Steps of linear warm-up.", 50, low=0)
    schedule: str = _setting(
        "Shape of the learning rate after warm-up.",
        "cosine",
        choices=("cosine", "linear", "constant_with_warmup"),
    )
    optimizer: str = _setting(
        "AdamW, with its state in 32 bits, in 8 bits (2 bytes a parameter instead of 8), or in 8"
        " bits that move to the host's memory when the GPU's is full.",
        ADAMW,
        choices=OPTIMIZERS,
    )
    weight_decay: float = _setting("Weight decay of AdamW.", 0.0, low=0.0, high=1.0)
    neftune_alpha: float = _setting(
        "Noise on the embeddings while training (NEFTune); 5 is common, 0 is none.", 0.0, low=0.0
    )
    batch_size: int = _setting("Rows per device and micro-step.", 1, low=1)
    gradient_accumulation: int = _setting("Micro-steps per optimizer step.", 4, low=1)
    gradient_checkpointing: bool = _setting(
        "Compute activations again in the backward pass instead of keeping them.", True
    )
    activation_offload: bool = _setting(
        "Keep what activations remain in the host's memory; needs a GPU.", False
    )
    pack_tokens: int = _setting(
        "Short rows are packed up to this length, none seeing another; 0 packs none.", 0, low=0
    )
    epochs: float = _setting("Passes over the rows, when max_steps is 0.", 3.0, low=0.0)
    max_steps: int = _setting("Optimizer steps; 0 counts by epochs.", 0, low=0)
    max_grad_norm: float = _setting("Gradients are clipped to this norm.", 1.0, low=0.0)
    seed: int = _setting("Seed of the adapter's start and of the row order.", 1, low=0)
    eval_rows: int = _setting("Held-out rows that each checkpoint is judged by.", 64, low=1)
    checkpoint_steps: int = _setting(
        "Steps between checkpoints; there is always one after each epoch and the last step.",
        200,
        low=0,
    )
    checkpoint: str = _setting(
        "The checkpoint that is taken: last, best, step:N or epoch:N. Another choice trains"
        " nothing.",
        LAST,
    )
    best_by: str = _setting(
        "What makes a checkpoint best on the held-out rows: the loss, or the share of tokens that"
        " are right.",
        BEST_BY[0],
        choices=BEST_BY,
    )
    patience: int = _setting(
        "Training ends after so many checkpoints without a better one; 0: never early.", 0, low=0
    )
    processes: int = _setting(
        "Processes that share the micro-steps of each optimizer step, one GPU each.",
        1,
        low=1,
        high=1024,
    )
    sharding: str = _setting(
        "What each process holds: all of the model, or its part of every weight (fsdp: PyTorch's"
        " FSDP2).",
        NONE,
        choices=SHARDINGS,
    )
    deepspeed: str = _setting(
        "DeepSpeed's own configuration, a JSON file that the trainer gets as it is; its package"
        " must be in the image.",
        "",
    )
    accelerator: str = _setting(
        "What trains: NVIDIA GPUs, or the CPU, which is for small models.",
        "cuda",
        choices=("cuda", "cpu"),
    )
    hosts: int = _setting(
        "Hosts that the processes are evenly on; they share the store. No key depends on it.",
        1,
        low=1,
        high=128,
    )
    address: str = _setting(
        "HOST:PORT of the first host, where the processes of several hosts meet. No key depends on"
        " it.",
        "",
    )
    cpu_threads: int = _setting(
        "Threads of every stage that computes on the CPU; the bytes may depend on it.", 2, low=1
    )
    report_to: tuple[str, ...] = _setting(
        "Where steps are reported besides the log and `make watch`: files that the tool of that"
        " name reads, kept beside the log. Its package must be in the image.",
        (),
        choices=REPORTERS,
        may_be_empty=True,
    )

    @property
    def image(self) -> str:
        """The image that trains."""
        return "train" if self.accelerator == "cpu" else f"train-{self.accelerator}"

    @property
    def result(self) -> str:
        """The artifact that training is for: the adapter, or the checkpoint that it made whole."""
        adapter, tuned = RESULTS
        return tuned if self.method == FULL else adapter


def find_train_contradictions(train: Train, folder: Path) -> list[str]:
    """Return what each field may say but the table as a whole cannot; paths are relative to
    `folder`."""
    problems = _find_idle_problems(train)
    if train.method == FULL and train.modules_to_save:
        problems.append('modules_to_save: method "full" trains every weight as it is')
    if train.init == PISSA and train.method == QLORA:
        problems.append('init: pissa takes singular values of 16-bit weights: set method = "lora"')
    if train.init == LOFTQ and train.method == LORA:
        problems.append('init: loftq makes up for what NF4 has lost: set method = "qlora"')
    if train.embedding_learning_rate and train.method != FULL and not train.modules_to_save:
        problems.append("embedding_learning_rate: needs embed_tokens or lm_head in modules_to_save")
    problems += find_process_contradictions(train, folder)
    problems += _find_checkpoint_problems(train)
    if train.accelerator == "cpu" and train.optimizer == PAGED_ADAMW_8BIT:
        problems.append('optimizer: only a GPU pages its memory: set optimizer = "adamw_8bit"')
    if train.accelerator == "cpu" and train.activation_offload:
        problems.append("activation_offload: there is no GPU to offload from")
    return [f"[train] {problem}" for problem in problems]


def _find_idle_problems(train: Train) -> list[str]:
    """Return what would have no effect, or leave the training without one."""
    defaults = {each.name: each.default for each in fields(Train)}
    changed = [name for name in _OF_ADAPTER if getattr(train, name) != defaults[name]]
    problems = [
        f'{name}: it is of an adapter; method "full" has none'
        for name in changed
        if train.method == FULL
    ]
    if not train.max_steps and not train.epochs:
        problems.append("epochs: with max_steps = 0 and epochs = 0 no step is taken")
    if not train.learning_rate:
        problems.append("learning_rate: at 0 nothing is learnt")
    if not train.alpha:
        problems.append("alpha: at 0 the adapter changes nothing")
    return problems


def _find_checkpoint_problems(train: Train) -> list[str]:
    """Return why the checkpoint cannot be there, as far as that is known before the rows are."""
    try:
        kind, number = parse_checkpoint(train.checkpoint)
    except ValueError as error:
        return [f"checkpoint: {error}"]
    if kind == STEP and train.max_steps and number > train.max_steps:
        return [f"checkpoint, max_steps: training ends after step {train.max_steps}"]
    if kind == EPOCH and not train.max_steps and number > train.epochs:
        return [f"checkpoint, epochs: training ends after {train.epochs:g} epochs"]
    return []
