"""[train] of a recipe: the method, its settings and what trains."""

from dataclasses import dataclass

from pipeline.recipe.setting import setting as _setting

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, kw_only=True)
class Train:
    method: str = _setting(
        "lora (16-bit base) or qlora (NF4 4-bit base).", "qlora", choices=("lora", "qlora")
    )
    rank: int = _setting("LoRA rank r.", 16, low=1, high=1024)
    alpha: float = _setting("LoRA alpha; the update is scaled by alpha / rank.", 16.0, low=0.0)
    dropout: float = _setting("LoRA dropout.", 0.0, low=0.0, high=0.9)
    target_modules: tuple[str, ...] = _setting(
        "Projections that get an adapter.", PROJECTIONS, choices=PROJECTIONS
    )
    learning_rate: float = _setting("Peak learning rate of AdamW.", 1e-4, low=0.0, high=1.0)
    warmup_steps: int = _setting("Steps of linear warm-up.", 50, low=0)
    schedule: str = _setting(
        "Shape of the learning rate after warm-up.",
        "cosine",
        choices=("cosine", "linear", "constant_with_warmup"),
    )
    weight_decay: float = _setting("Weight decay of AdamW.", 0.0, low=0.0, high=1.0)
    batch_size: int = _setting("Rows per device and micro-step.", 1, low=1)
    gradient_accumulation: int = _setting("Micro-steps per optimizer step.", 4, low=1)
    pack_tokens: int = _setting(
        "Short rows are packed up to this length, none seeing another; 0 packs none.", 0, low=0
    )
    epochs: float = _setting("Passes over the rows, when max_steps is 0.", 3.0, low=0.0)
    max_steps: int = _setting("Optimizer steps; 0 counts by epochs.", 0, low=0)
    max_grad_norm: float = _setting("Gradients are clipped to this norm.", 1.0, low=0.0)
    seed: int = _setting("Seed of the adapter's start and of the row order.", 1, low=0)
    eval_rows: int = _setting("Held-out rows whose loss is taken before and after.", 64, low=1)
    accelerator: str = _setting(
        "What trains: NVIDIA GPUs, or the CPU, which is for small models.",
        "cuda",
        choices=("cuda", "cpu"),
    )
    cpu_threads: int = _setting(
        "Threads of every stage that computes on the CPU; the bytes may depend on it.", 2, low=1
    )

    @property
    def image(self) -> str:
        """The image that trains."""
        return "train" if self.accelerator == "cpu" else f"train-{self.accelerator}"
