"""What a build will take: memory part by part, cards that it fits, time, cost, and advice.

Made for `plan` alone; a build needs no more than `estimate.py`.
"""

from dataclasses import dataclass

from pipeline.estimate.advice import advise
from pipeline.estimate.estimate import Estimate
from pipeline.estimate.gguf_size import list_tensors
from pipeline.estimate.gpus import GPUS, Gpu
from pipeline.estimate.rows import RowCount, count_training_steps
from pipeline.estimate.serving import ServeMemory, model_serving
from pipeline.estimate.shape import Shape
from pipeline.estimate.step_time import model_step_s
from pipeline.estimate.training import (
    TrainingForm,
    TrainMemory,
    make_training_form,
    model_training,
)
from pipeline.estimate.verdicts import (
    Slots,
    find_longest,
    fits,
    list_serving_verdicts,
    list_training_verdicts,
)
from pipeline.gguf_types import Decoder, choose_types, count_row_bytes, parse_override
from pipeline.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class OnGpu:
    """One card: whether it trains and serves the recipe as it is, the longest sequence that it
    trains (0: none), and, where rows are known, time and, at a price, cost of the training."""

    gpu: Gpu
    trains: bool
    serves: bool
    longest_sequence: int
    step_s: float
    total_s: float | None
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """`verdicts` and `advice` are sentences; `steps` are optimizer steps, None where unknown."""

    form: TrainingForm
    train: TrainMemory
    serve: ServeMemory
    rows: RowCount | None
    steps: int | None
    gpus: tuple[OnGpu, ...]
    verdicts: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is trained: tokens of a row or pack, optimizer steps, and the price of an hour."""

    unit_tokens: float
    steps: int | None
    price: float | None


def make_outlook(
    recipe: Recipe, sizes: Estimate, *, rows: RowCount | None, price: float | None
) -> Outlook:
    """Return the outlook; `price` is that of one card for an hour, in any currency."""
    shape, form = sizes.shape, make_training_form(recipe)
    steps = recipe.train.max_steps or None
    if rows is not None:
        steps = count_training_steps(recipe, rows)
    serve = _model_serving(recipe, sizes)
    unit_tokens = _find_unit_tokens(recipe, form, rows)
    work = _Work(unit_tokens=unit_tokens, steps=steps, price=price)
    cards = GPUS if form.on_gpu else ()
    gpus = tuple(_judge(shape, form, serve, gpu, work) for gpu in cards)
    return Outlook(
        form=form,
        train=model_training(shape, form),
        serve=serve,
        rows=rows,
        steps=steps,
        gpus=gpus,
        verdicts=(
            *(list_training_verdicts(shape, form, cards)),
            *(list_serving_verdicts(shape, serve, _find_slots(recipe), GPUS)),
        ),
        advice=tuple(advise(shape, form, GPUS[0])) if form.on_gpu else (),
    )


def _model_serving(recipe: Recipe, sizes: Estimate) -> ServeMemory:
    has_imatrix = recipe.gguf.calibration > 0
    overrides = [parse_override(each, has_imatrix=has_imatrix) for each in recipe.gguf.tensor_types]
    shape = sizes.shape
    decoder = Decoder(
        architecture=shape.architecture,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
    )
    types = choose_types(
        recipe.serve.type, list_tensors(shape), decoder, overrides, has_imatrix=has_imatrix
    )
    rows, columns = list_tensors(shape)["token_embd.weight"]
    return model_serving(
        shape,
        tensor_bytes=sizes.gguf[recipe.serve.type].tensor_bytes,
        embedding_bytes=rows * count_row_bytes(types["token_embd.weight"], columns),
        cache_type=recipe.serve.cache_type.upper(),
        context=recipe.serve.context,
        parallel=recipe.serve.parallel,
        on_gpu=recipe.serve.accelerator != "cpu",
    )


def _find_slots(recipe: Recipe) -> Slots | None:
    """Return what the recipe's server keeps on a GPU; None where a CPU serves."""
    serve = recipe.serve
    is_cpu = serve.accelerator == "cpu"
    return None if is_cpu else Slots(context=serve.context, parallel=serve.parallel)


def _judge(shape: Shape, form: TrainingForm, serve: ServeMemory, gpu: Gpu, work: _Work) -> OnGpu:
    step_s = model_step_s(shape, form, gpu, row_tokens=work.unit_tokens)
    total_s = None if work.steps is None else work.steps * step_s
    return OnGpu(
        gpu=gpu,
        trains=fits(shape, form, gpu),
        serves=serve.total_bytes <= gpu.usable_bytes,
        longest_sequence=find_longest(shape, form, gpu),
        step_s=step_s,
        total_s=total_s,
        cost=None if total_s is None or work.price is None else total_s / 3600 * work.price,
    )


def _find_unit_tokens(recipe: Recipe, form: TrainingForm, rows: RowCount | None) -> float:
    """Return the tokens of a row, or of a pack, on average; of the longest where rows are not
    counted."""
    if recipe.train.pack_tokens or rows is None or not rows.train:
        return form.sequence
    return rows.row_tokens
