"""Text-only checkpoint + dataset -> a LoRA adapter, trained with PEFT and TRL's SFTTrainer.

In: `text`, `dataset`. Out: adapter_model.safetensors, adapter_config.json, metrics.json, and
base.sha256, by which a merge refuses another base. What stays true: only completion tokens carry
loss; the same inputs and options give the same bytes on the same machine; a run that diverges or
learns nothing fails and writes no adapter.

The adapter is float32 whatever the base computes in (see model.py).
"""

import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import PreTrainedModel, PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from pipeline.checkpoint.weights import write_base_digest
from pipeline.data.encoding import read_tokenizer
from pipeline.data.packing import collate_packs, pack_rows
from pipeline.errors import StageError
from pipeline.log import say, step
from pipeline.sft.adapter_files import read_adapter_tensors, write_adapter
from pipeline.sft.arrow import read_split
from pipeline.sft.loss import read_loss
from pipeline.sft.model import make_repeatable, on_gpu, read_base, silence_libraries
from pipeline.sft.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Options:
    method: str
    rank: int
    alpha: float
    dropout: float
    target_modules: tuple[str, ...]
    learning_rate: float
    warmup_steps: int
    schedule: str
    weight_decay: float
    batch_size: int
    gradient_accumulation: int
    pack_tokens: int
    max_steps: int
    epochs: float
    max_grad_norm: float
    seed: int
    eval_rows: int
    cpu_threads: int


def make_adapted(base: PreTrainedModel, options: Options) -> PeftModel:
    """Return the base with fresh LoRA weights, which depend on the seed alone."""
    set_seed(options.seed)  # here, and not later: this call draws the matrices A
    return get_peft_model(
        base,
        LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            lora_dropout=options.dropout,
            target_modules=list(options.target_modules),
            bias="none",
            task_type=TaskType.CAUSAL_LM,
        ),
    )


def make_arguments(options: Options, scratch: Path) -> SFTConfig:
    """Return the trainer's arguments; nothing is reported, saved or drawn while it runs."""
    return SFTConfig(
        output_dir=str(scratch),
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        lr_scheduler_type=options.schedule,
        weight_decay=options.weight_decay,
        per_device_train_batch_size=options.batch_size,
        gradient_accumulation_steps=options.gradient_accumulation,
        max_steps=options.max_steps or -1,
        num_train_epochs=options.epochs,
        max_grad_norm=options.max_grad_norm,
        seed=options.seed,
        data_seed=options.seed,
        max_length=None,  # the dataset stage has left long rows out: nothing is cut here
        dataset_kwargs={"skip_prepare_dataset": True},  # labels are the dataset's own
        bf16=on_gpu(),
        gradient_checkpointing=on_gpu(),
        use_cpu=not on_gpu(),
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu(),
        logging_steps=1,  # `Progress` looks at every loss
        logging_nan_inf_filter=False,  # and must see the ones that are none
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def make_trainer(
    model: PeftModel, rows: Dataset, *, text: Path, options: Options, scratch: Path
) -> SFTTrainer:
    """Return TRL's trainer over rows of input_ids and labels, without its own printing."""
    trainer = SFTTrainer(
        model=model,
        args=make_arguments(options, scratch),
        train_dataset=rows,
        processing_class=read_tokenizer(text),
        # TRL's own pads; one for packs it has for FlashAttention's package alone.
        data_collator=collate_packs if options.pack_tokens else None,
    )
    trainer.remove_callback(PrinterCallback)
    for name, parameter in model.named_parameters():
        # TRL casts a quantized base's adapter to bfloat16, where AdamW's small updates vanish.
        if parameter.requires_grad:
            assert "lora_" in name, f"{name} would be trained"
            parameter.data = parameter.data.float()
    return trainer


def _check_changed(tensors: Mapping[str, torch.Tensor]) -> None:
    learnt = [name for name, tensor in tensors.items() if "lora_B" in name and tensor.any()]
    if not learnt:
        raise StageError(
            "the adapter has learnt nothing",
            on=f"{len(tensors)} tensors",
            why="every matrix B is still zero: no step was taken, or the learning rate is 0",
            then="raise train.max_steps, train.epochs or train.learning_rate in the recipe",
        )


def _check_finite(loss_after: float) -> None:
    if not math.isfinite(loss_after):
        raise StageError(
            "the trained adapter is broken",
            on=f"loss on held-out rows: {loss_after}",
            why="the last steps made its weights overflow",
            then="lower train.learning_rate in the recipe",
        )


def _write_metrics(values: Mapping[str, Any], out: Path) -> None:
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    (out / "metrics.json").write_text(text, encoding="utf-8")


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Train and write the adapter with its metrics.

    Raises StageError for rows without a supervised token, a loss that is not finite (naming the
    step), or an adapter that is unchanged.
    """
    make_repeatable(options.cpu_threads)
    silence_libraries()
    held_out = read_split(inputs["dataset"] / "held_out.arrow", limit=options.eval_rows)
    model = make_adapted(read_base(inputs["text"], options.method), options)
    progress = Progress()
    # Below `out`: the usual place for what is temporary may be memory.
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        rows = train = read_split(inputs["dataset"] / "train.arrow", scratch=Path(scratch))
        if options.pack_tokens:
            rows = pack_rows(train, options.pack_tokens, scratch=Path(scratch))
        trainer = make_trainer(
            model, rows, text=inputs["text"], options=options, scratch=Path(scratch)
        )
        trainer.add_callback(progress)
        judge = partial(
            read_loss, rows=held_out, collate=trainer.data_collator, batch_size=options.batch_size
        )
        before = judge(model)
        packed = f", {len(rows)} packs" if options.pack_tokens else ""
        with step(f"train on {len(train)} rows{packed}"):
            trainer.train()
        after = judge(model)
    say(f"  loss on {len(held_out)} held-out rows: {before:.4f} before, {after:.4f} after")
    tensors = read_adapter_tensors(model)
    _check_changed(tensors)
    _check_finite(after)
    write_adapter(model, tensors, out)
    write_base_digest(inputs["text"], out)
    metrics = {
        "loss_before": before,
        "loss_after": after,
        "steps": trainer.state.global_step,
        "trainable_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "log": progress.lines,
    }
    _write_metrics(metrics, out)
