"""A subject and its rows -> TRL's SFTTrainer, set up so that a run repeats and says nothing itself.

TRL weighs the loss by token over the micro-steps and the processes of an optimizer step, and takes
it from the output head in tiles, so that the logits of a vocabulary are never in memory at once.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from transformers import PrinterCallback, TrainerControl
from trl import SFTConfig, SFTTrainer

from pipeline.data.encoding import read_tokenizer
from pipeline.data.packing import collate_packs
from pipeline.errors import StageError
from pipeline.sft.loss import Judgement, judge
from pipeline.sft.method import Subject
from pipeline.sft.model import on_gpu
from pipeline.sft.names import ADAMW, ADAMW_8BIT, FSDP, PAGED_ADAMW_8BIT
from pipeline.sft.options import Options
from pipeline.sft.ranks import find_backend, share
from pipeline.sft.shares import make_loader

# The trainer's names.
_OPTIMIZERS = {
    ADAMW: "adamw_torch_fused",
    ADAMW_8BIT: "adamw_8bit",
    PAGED_ADAMW_8BIT: "paged_adamw_8bit",
}


class Trainer(SFTTrainer):  # type: ignore[misc, unused-ignore]
    """TRL's trainer, with a learning rate of its own for embeddings and output head, and held-out
    rows judged by `judge`."""

    control: TrainerControl

    def __init__(
        self,
        subject: Subject,
        *,
        embedding_learning_rate: float,
        held_out: Dataset | None,
        **rest: Any,
    ) -> None:
        self.subject = subject
        self._embedding_learning_rate = embedding_learning_rate
        self._held_out = held_out
        super().__init__(model=subject.model, **rest)

    def get_train_dataloader(self) -> Any:
        """Return this process's batches; those of several are the batches of one, dealt out."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        loader = make_loader(
            self.train_dataset,
            batch_size=self.args.per_device_train_batch_size,
            processes=self.args.world_size,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def judge(self) -> Judgement:
        """Return how well the model knows the held-out rows now; the same in every process."""
        found = judge(
            self.model,
            self._held_out,
            collate=self.data_collator,
            batch_size=self.args.per_device_train_batch_size,
        )
        # On another GPU the last bit may differ, and with it who would end early.
        return share(found)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Judge the held-out rows and log it, as the trainer logs its own evaluation."""
        found = self.judge()
        metrics = {"eval_loss": found.loss, "eval_mean_token_accuracy": found.accuracy}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: it holds the date."""

    def _load_from_checkpoint(self, directory: str, model: torch.nn.Module | None = None) -> None:
        """Load a state's weights into the model. Of an adapter, PEFT's own way would spread a model
        that lies on the CPU anew."""
        if not isinstance(self.model, PeftModel) or self.is_fsdp_enabled:
            super()._load_from_checkpoint(directory, model)
            return
        tensors = load_peft_weights(directory, device="cpu")
        told = set_peft_model_state_dict(self.model, tensors)
        lost = [name for name in told.missing_keys if ".lora_" in name]
        assert not (told.unexpected_keys or lost), (told.unexpected_keys, lost)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer; 0 leaves embeddings and output head with the rest."""
        exists = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if self._embedding_learning_rate and not exists:
            self._split_off_embeddings(optimizer)
        return optimizer

    def _split_off_embeddings(self, optimizer: torch.optim.Optimizer) -> None:
        inner = self.accelerator.unwrap_model(self.model)
        modules = (inner.get_input_embeddings(), inner.get_output_embeddings())
        apart = {id(each) for module in modules if module for each in module.parameters()}
        for group in list(optimizer.param_groups):
            parameters = [each for each in group["params"] if id(each) in apart]
            if parameters:
                group["params"] = [each for each in group["params"] if id(each) not in apart]
                rate = {"params": parameters, "lr": self._embedding_learning_rate}
                optimizer.add_param_group({**group, **rate})


def make_arguments(options: Options, scratch: Path) -> SFTConfig:
    """Return the trainer's arguments; nothing is reported or drawn while it runs, and saved only
    when a callback asks for it."""
    return SFTConfig(
        output_dir=str(scratch),
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        lr_scheduler_type=options.schedule,
        optim=_OPTIMIZERS[options.optimizer],
        weight_decay=options.weight_decay,
        neftune_noise_alpha=options.neftune_alpha or None,
        per_device_train_batch_size=options.batch_size,
        # The rows of an optimizer step are the same, however many processes share them.
        gradient_accumulation_steps=options.gradient_accumulation // options.processes,
        max_steps=options.max_steps or -1,
        num_train_epochs=options.epochs,
        max_grad_norm=options.max_grad_norm,
        seed=options.seed,
        data_seed=options.seed,
        max_length=None,  # the dataset stage has left long rows out: nothing is cut here
        dataset_kwargs={"skip_prepare_dataset": True},  # labels are the dataset's own
        bf16=on_gpu(),
        gradient_checkpointing=options.gradient_checkpointing,
        activation_offloading=options.activation_offload,
        use_cpu=not on_gpu(),
        ddp_backend=find_backend() if options.processes > 1 else None,
        ddp_find_unused_parameters=False,  # all that is trained is in every step
        **_make_sharding(options),
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu(),
        logging_steps=1,  # every loss is looked at
        logging_nan_inf_filter=False,  # and those must be seen that are none
        save_strategy="no",
        report_to=options.report_to.split(",") if options.report_to else "none",
        disable_tqdm=True,
    )


def _make_sharding(options: Options) -> dict[str, Any]:
    """Return the arguments by which processes hold parts of the model: FSDP2, or DeepSpeed by its
    own configuration. Raises StageError when that is not in the image."""
    if options.deepspeed:
        if find_spec("deepspeed") is None:
            raise StageError(
                "DeepSpeed is not in the image",
                on="train.deepspeed",
                why="the image holds what docker/train.in lists, and nobody else needs the package",
                then='add it there and run make locks, or set train.sharding = "fsdp" instead',
            )
        return {"deepspeed": json.loads(options.deepspeed)}
    if options.sharding == FSDP:
        # Each process keeps its part of a state: one that holds all of it may not have the memory.
        return {
            "fsdp": True,
            "fsdp_config": {"version": 2, "state_dict_type": "SHARDED_STATE_DICT"},
        }
    return {}


def make_trainer(
    subject: Subject,
    rows: Dataset,
    *,
    options: Options,
    scratch: Path,
    held_out: Dataset | None = None,
) -> Trainer:
    """Return TRL's trainer over rows of input_ids and labels, without its own printing; its
    checkpoints are written below `scratch`."""
    trained = {each: each.data for each in subject.model.parameters() if each.requires_grad}
    trainer = Trainer(
        subject,
        args=make_arguments(options, scratch),
        train_dataset=rows,
        processing_class=read_tokenizer(subject.text),
        # TRL's own pads; one for packs it has for FlashAttention's package alone.
        data_collator=collate_packs if options.pack_tokens else None,
        embedding_learning_rate=options.embedding_learning_rate,
        held_out=held_out,
    )
    trainer.remove_callback(PrinterCallback)
    for parameter, data in trained.items():
        # TRL casts a quantized base's adapter to bfloat16, where AdamW's small updates vanish.
        parameter.data = data
    return trainer
