"""Which cards train and serve a recipe, and up to which length, in sentences."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.estimate.gpus import Gpu
from pipeline.estimate.serving import ServeMemory, count_cache_bytes
from pipeline.estimate.shape import Shape
from pipeline.estimate.training import TrainingForm, model_training, with_sequence

_GIB = 1 << 30
# Lengths that are tried; between two of them nobody chooses.
LENGTHS = (
    *(256, 512, 1024, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536),
    *(98304, 131072, 196608, 262144, 393216, 524288, 1048576),
)


@dataclass(frozen=True, kw_only=True)
class Slots:
    """What a server keeps: so many contexts of so many tokens."""

    context: int
    parallel: int


def fits(shape: Shape, form: TrainingForm, gpu: Gpu) -> bool:
    """Whether the card trains it."""
    return model_training(shape, form).total_bytes <= gpu.usable_bytes


def find_longest(shape: Shape, form: TrainingForm, gpu: Gpu) -> int:
    """Return the longest sequence of the ladder, or the form's own, that the card trains; 0 for
    none."""
    lengths = sorted({*_list_lengths(shape), form.sequence}, reverse=True)
    return next((each for each in lengths if fits(shape, with_sequence(form, each), gpu)), 0)


def list_training_verdicts(shape: Shape, form: TrainingForm, gpus: Sequence[Gpu]) -> Iterator[str]:
    """Yield a sentence for each size of card, by the one of that size that has least."""
    needed = model_training(shape, form).total_bytes
    for gpu in _list_smallest(gpus):
        answer = "yes" if needed <= gpu.usable_bytes else "no"
        size = gpu.nominal_gb
        told = _tell_sequences(shape, form, gpu)
        yield f"Fits a {size} GB card: {answer}, {needed / _GIB:.1f} of {size}{told}."


def _tell_sequences(shape: Shape, form: TrainingForm, gpu: Gpu) -> str:
    longest = find_longest(shape, form, gpu)
    if longest < form.sequence:
        return f"; sequence {longest:,} would fit" if longest else "; no sequence would"
    return _tell_beyond(shape, "sequence", form.sequence, longest)


def _tell_beyond(shape: Shape, what: str, own: int, longest: int) -> str:
    beyond = next((each for each in _list_lengths(shape) if each > longest), 0)
    if longest == own:
        return f"; {what} {beyond:,} would not" if beyond else ""
    told = f"; {what} {longest:,} would also fit"
    return f"{told}, {beyond:,} would not" if beyond else f"{told}, the model's longest"


def list_serving_verdicts(
    shape: Shape, serve: ServeMemory, slots: Slots | None, gpus: Sequence[Gpu]
) -> Iterator[str]:
    """Yield a sentence on the smallest card that serves, or on the largest, which does not."""
    if slots is None:
        return
    cards = _list_smallest(gpus)
    gpu = next((each for each in cards if serve.total_bytes <= each.usable_bytes), None)
    if gpu is None:
        largest = cards[-1].nominal_gb
        yield f"Served by no card of up to {largest} GB: {serve.total_bytes / _GIB:.1f} needed."
        return
    size, needed = gpu.nominal_gb, serve.total_bytes / _GIB
    longest = _find_context(shape, serve, slots, gpu, serve.cache_type)
    told = _tell_beyond(shape, "context", slots.context, longest)
    smaller = _find_context(shape, serve, slots, gpu, "Q8_0") if "Q8_0" in serve.cache_bytes else 0
    if smaller > longest:
        told += f"; {smaller:,} with a Q8_0 cache"
    yield f"Served by a {size} GB card: yes, {needed:.1f} of {size}{told}."


def _find_context(shape: Shape, serve: ServeMemory, slots: Slots, gpu: Gpu, cache_type: str) -> int:
    """Return the longest context that fits with a cache of that type."""
    rest = serve.total_bytes - serve.parts["kv_cache"]
    lengths = sorted({*_list_lengths(shape), slots.context}, reverse=True)

    def measure(context: int) -> int:
        return count_cache_bytes(shape, cache_type, context=context, parallel=slots.parallel)

    return next((each for each in lengths if rest + measure(each) <= gpu.usable_bytes), 0)


def _list_lengths(shape: Shape) -> list[int]:
    return [each for each in LENGTHS if not shape.positions or each <= shape.positions]


def _list_smallest(gpus: Sequence[Gpu]) -> list[Gpu]:
    """Return one card of each size, the one that has least, from the smallest size."""
    sizes = sorted({gpu.nominal_gb for gpu in gpus})
    return [
        min((gpu for gpu in gpus if gpu.nominal_gb == size), key=lambda each: each.usable_bytes)
        for size in sizes
    ]
