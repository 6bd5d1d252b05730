"""A text-only checkpoint and a method -> what is trained, and how it is written.

`lora` and `qlora` train a PEFT adapter beside a frozen base, `full` every weight. What stays true:
the start depends on the seed alone; what is written is what training has changed, relative to the
16-bit checkpoint: an adapter that did not start at zero (PiSSA, LoftQ) is written as the difference
from its start, in twice the rank, so that it is added to that checkpoint like any other.

Trained weights are float32 whatever the base computes in: small steps of AdamW vanish in BF16.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.lora import Linear4bit
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, set_seed

from pipeline.checkpoint.shards import read_checkpoint, split_rows, write_checkpoint
from pipeline.checkpoint.weights import open_weights, write_base_digest, write_small_files
from pipeline.errors import StageError
from pipeline.sft.adapter_files import read_adapter_tensors, write_adapter
from pipeline.sft.model import read_base
from pipeline.sft.names import EMBED_TOKENS, FULL, GAUSSIAN, LOFTQ, PISSA, ZERO
from pipeline.sft.options import Options

# Iterations of the randomised singular value decomposition; PEFT's own figure for PiSSA.
_SVD_ITERATIONS = 16

# PEFT's names of the starts; LoftQ begins as the plain one and is filled in here.
_PEFT_INITS = {
    ZERO: True,
    GAUSSIAN: "gaussian",
    PISSA: f"pissa_niter_{_SVD_ITERATIONS}",
    LOFTQ: True,
}

_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is trained, from the text-only checkpoint `text`.

    `start` holds the adapter's tensors before training where B A was not zero then.
    """

    model: PreTrainedModel | PeftModel
    text: Path
    start: Mapping[str, torch.Tensor]

    def gather(self) -> dict[str, torch.Tensor]:
        """Return all that is trained, by the model's names. Of weights that are spread over the
        processes the whole; each process must call this."""
        return {
            name: each.full_tensor() if isinstance(each, DTensor) else each.detach()
            for name, each in self.model.named_parameters()
            if each.requires_grad
        }

    def write(self, directory: Path, gathered: Mapping[str, torch.Tensor]) -> None:
        """Write what training has made so far: an adapter with the digest of its base, or a
        text-only 16-bit checkpoint. The model stays as it is."""
        if not isinstance(self.model, PeftModel):
            _write_whole(gathered, self.text, directory)
            return
        tensors = read_adapter_tensors(self.model, gathered)
        config = self.model.peft_config["default"]
        values = config.to_dict()
        if self.start:
            tensors = _subtract_start(tensors, self.start)
            factor = math.sqrt(2) if config.use_rslora else 2
            values |= {"r": 2 * config.r, "lora_alpha": factor * config.lora_alpha}
        # Whatever it started from, it is added to the checkpoint as it is.
        write_adapter(values | {"init_lora_weights": True}, tensors, directory)
        write_base_digest(self.text, directory)

    def count_trainable(self) -> int:
        """Return how many parameters are trained."""
        return sum(each.numel() for each in self.model.parameters() if each.requires_grad)

    def check_changed(self, gathered: Mapping[str, torch.Tensor]) -> None:
        """Raise StageError when training has changed nothing that is written."""
        whole = self._list_whole(gathered)
        is_adapter = isinstance(self.model, PeftModel)
        tensors = read_adapter_tensors(self.model, gathered) if is_adapter else {}
        if self.start:
            changed = any(not torch.equal(tensors[name], self.start[name]) for name in self.start)
        else:
            changed = any(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
        if not changed and not _differ(whole, self.text):
            raise StageError(
                f"{'the adapter' if tensors else 'the model'} has learnt nothing",
                on=f"{len(tensors) or len(whole)} tensors",
                why="every weight is as it was: no step was taken, or the learning rate is 0, or"
                " too small for 16 bits",
                then="raise train.max_steps, train.epochs or train.learning_rate in the recipe",
            )

    def _list_whole(self, gathered: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the weights that are trained whole, by their names in the checkpoint."""
        if not isinstance(self.model, PeftModel):
            return dict(gathered)
        return {
            name.removeprefix(_PREFIX).replace(".modules_to_save.default", ""): tensor
            for name, tensor in gathered.items()
            if ".modules_to_save." in name
        }


def make_subject(text: Path, options: Options) -> Subject:
    """Return what the options train, at its start.

    Raises StageError for modules that the checkpoint cannot train apart.
    """
    base = read_base(text, options.method)
    if options.method == FULL:
        _check_names(base, text)
        return Subject(model=_keep_float(base), text=text, start={})
    _check_untied(base, options)
    adapted = make_adapted(base, options)
    if options.init == LOFTQ:
        _start_from_loss(adapted, text)
    starts_at_zero = options.init in (ZERO, GAUSSIAN)
    tensors = {} if starts_at_zero else read_adapter_tensors(adapted)
    start = {name: each.clone() for name, each in tensors.items() if ".lora_" in name}
    return Subject(model=adapted, text=text, start=start)


def make_adapted(base: PreTrainedModel, options: Options) -> PeftModel:
    """Return the base with fresh LoRA weights, which depend on the seed alone."""
    set_seed(options.seed)  # here, and not later: this call draws the matrices A
    adapted = get_peft_model(
        base,
        LoraConfig(
            r=options.rank,
            lora_alpha=options.alpha,
            use_rslora=options.rslora,
            init_lora_weights=_PEFT_INITS[options.init],
            lora_dropout=options.dropout,
            target_modules=list(options.target_modules),
            modules_to_save=list(options.modules_to_save) or None,
            bias="none",
            task_type=TaskType.CAUSAL_LM,
        ),
    )
    if EMBED_TOKENS in options.modules_to_save:
        # They are float32 like all that is trained; the layers behind them compute in theirs.
        dtype = base.dtype
        base.get_input_embeddings().register_forward_hook(lambda _, __, found: found.to(dtype))
    return _keep_float(adapted)


def _keep_float(model: Any) -> Any:
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _check_names(base: PreTrainedModel, text: Path) -> None:
    """Refuse, before hours of training, a model that could not be written in its own layout."""
    expected = set(open_weights(text).shapes)
    if different := sorted(expected ^ {name for name, _ in base.named_parameters()}):
        raise StageError(
            "this model cannot be trained whole",
            on=f"{different[0]}, and {len(different) - 1} more of its weights",
            why="in memory transformers names or joins them in another way than in the file",
            then='set method = "lora" or "qlora" in [train] of the recipe',
        )


def _check_untied(base: PreTrainedModel, options: Options) -> None:
    if options.modules_to_save and base.config.tie_word_embeddings:
        raise StageError(
            "the embeddings cannot be trained beside an adapter",
            on=f"train.modules_to_save = {list(options.modules_to_save)}",
            why="this checkpoint ties its output head to them: trained apart, neither would fit",
            then='take modules_to_save out of the recipe, or set method = "full"',
        )


@torch.no_grad()
def _start_from_loss(adapted: PeftModel, text: Path) -> None:
    """Let B A make up for what quantization has taken from each weight (LoftQ, one iteration).

    The best product of the adapter's rank is by singular values. arXiv 2310.08659, algorithm 1;
    PEFT's own runs on GPUs alone, and reckons with a scaling of 1.
    """
    weights = read_checkpoint(text)
    for name, module in adapted.named_modules():
        if not isinstance(module, Linear4bit):
            continue
        base = module.get_base_layer().weight
        held_OI = dequantize_4bit(base.data, base.quant_state).float()
        stored = weights.read(f"{name.removeprefix(_PREFIX)}.weight")
        lost_OI = stored.to(held_OI.device, torch.float32) - held_OI
        a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
        u_OR, s_R, v_IR = torch.svd_lowrank(lost_OI, q=len(a), niter=_SVD_ITERATIONS)
        root_R = (s_R / module.scaling["default"]).sqrt()
        b.copy_(u_OR * root_R)
        a.copy_((v_IR * root_R).T)


def _subtract_start(
    tensors: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return factors of B A - B0 A0: [B, -B0] and [A; A0], twice the rank."""
    found = dict(tensors)
    for name, before in start.items():
        is_b = ".lora_B." in name
        pair = (tensors[name], -before if is_b else before)
        found[name] = torch.cat(pair, dim=1 if is_b else 0).contiguous()
    return found


def _write_whole(tensors: Mapping[str, torch.Tensor], text: Path, out: Path) -> None:
    """Write the weights in the layout of `text`: BF16, its names, tokenizer and template."""
    shapes = open_weights(text).shapes
    assert set(shapes) <= set(tensors), f"not trained: {sorted(set(shapes) - set(tensors))[:3]}"

    def read_rows(name: str, start: int, stop: int) -> torch.Tensor:
        return tensors[name][start:stop].detach().bfloat16().cpu().contiguous()

    write_checkpoint(out, shapes, read_rows)
    write_small_files(text, out)


def _differ(trained: Mapping[str, torch.Tensor], text: Path) -> bool:
    """Whether any weight, in 16 bits, is not the checkpoint's."""
    weights = read_checkpoint(text)
    return any(
        not torch.equal(ours.to(theirs.dtype).cpu(), theirs)
        for name, tensor in trained.items()
        for ours, theirs in _pair_slabs(tensor.detach(), weights, name)
    )


def _pair_slabs(
    tensor: torch.Tensor, weights: Any, name: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for slab in split_rows(tuple(tensor.shape)):
        yield tensor[slab[0] : slab[1]], weights.read_rows(name, *slab)
