"""A training that does not fit a card -> the smallest change that makes it fit.

Changes are tried in the order of what they cost: first those that change nothing of what is learnt,
then those that change little. The first that is enough alone is the advice; when none is, they are
taken one after the other until it fits.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

from pipeline.estimate.gpus import GPUS, Gpu
from pipeline.estimate.shape import Shape
from pipeline.estimate.training import TrainingForm
from pipeline.estimate.verdicts import fits
from pipeline.recipe.train import Train

_SEQUENCES = (65536, 49152, 32768, 24576, 16384, 12288, 8192, 6144, 4096, 3072, 2048, 1536, 1024)
_LEAST_RANK = 8

# Changes of one kind: how a recipe says each, and the form after it, from the least to the most.
_Changes = Iterator[tuple[str, TrainingForm]]


def advise(shape: Shape, form: TrainingForm, gpu: Gpu) -> Iterator[str]:
    """Yield what to do where the training does not fit the card; nothing where it does."""
    if fits(shape, form, gpu):
        return
    alone = (told for kind in _KINDS for told, each in kind(form) if fits(shape, each, gpu))
    told = next(alone, "") or _find_together(shape, form, gpu)
    if told:
        yield f"to fit {gpu.nominal_gb} GB: {told}"
    else:
        yield f"no change of the recipe makes it fit {gpu.nominal_gb} GB"
    larger = [each for each in GPUS if fits(shape, form, each)]
    if larger:
        smallest = min(larger, key=lambda each: each.usable_bytes)
        yield f"as it is, it fits {smallest.nominal_gb} GB ({smallest.name})"


def _find_together(shape: Shape, form: TrainingForm, gpu: Gpu) -> str:
    """Return the changes that fit together, each kind as far as it must go; "" when all do not."""
    taken = []
    for kind in _KINDS:
        changes = list(kind(form))
        if not changes:
            continue
        enough = (change for change in changes if fits(shape, change[1], gpu))
        told, form = next(enough, changes[-1])
        taken.append(told)
        if fits(shape, form, gpu):
            return ", and ".join(taken)
    return ""


def _split_batches(form: TrainingForm) -> _Changes:
    for size in range(form.batch_size - 1, 0, -1):
        if form.batch_size % size == 0:
            steps = form.accumulation * form.batch_size // size
            told = f"[train] batch_size = {size} and gradient_accumulation = {steps}, which learns"
            yield f"{told} the same", replace(form, batch_size=size, accumulation=steps)


def _offload(form: TrainingForm) -> _Changes:
    if form.on_gpu and not form.offloads:
        told = "[train] activation_offload = true, which learns the same, slower"
        yield told, replace(form, offloads=True)


def _keep_small_moments(form: TrainingForm) -> _Changes:
    known = {each.name for each in fields(Train)}
    if "optimizer" in known and form.optimizer == "adamw":
        yield '[train] optimizer = "adamw_8bit"', replace(form, optimizer="adamw_8bit")


def _use_4_bits(form: TrainingForm) -> _Changes:
    if form.method == "full":
        yield '[train] method = "lora"', replace(form, method="lora")
    if form.method != "qlora":
        yield '[train] method = "qlora"', replace(form, method="qlora")


def _shorten(form: TrainingForm) -> _Changes:
    for length in _SEQUENCES:
        if length < form.sequence:
            told = f"[dataset] sequence_length = {length}"
            if form.packs:
                told = f"[train] pack_tokens = {length}, and no row longer"
            yield told, replace(form, sequence=length)


def _lower_rank(form: TrainingForm) -> _Changes:
    rank = form.rank // 2
    while rank >= _LEAST_RANK and form.method != "full":
        yield f"[train] rank = {rank}", replace(form, rank=rank)
        rank //= 2


_KINDS: tuple[Callable[[TrainingForm], _Changes], ...] = (
    _split_batches,
    _offload,
    _keep_small_moments,
    _use_4_bits,
    _shorten,
    _lower_rank,
)
