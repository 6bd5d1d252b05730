"""Out of memory while training -> what to lower, and how much each change saves.

The savings are those of the plan's model, for the model and the longest row at hand.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import torch

from pipeline.checkpoint.text_config import CONFIG, read_config
from pipeline.errors import StageError
from pipeline.estimate.shape import Shape, is_listed, model_shape, parse_shape
from pipeline.estimate.training import TrainingForm, model_training
from pipeline.sft.model import on_gpu
from pipeline.sft.names import FULL, PAGED_ADAMW_8BIT, QLORA
from pipeline.sft.options import Options

_LEAST_TOKENS = 256
# The words of PyTorch's allocator for the host's memory, which has no exception of its own.
_HOST_FULL = "can't allocate memory"


@contextmanager
def answer_out_of_memory(text: Path, dataset: Path, options: Options) -> Iterator[None]:
    """Turn the allocators' errors into a StageError that says what to lower, by how much."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and _HOST_FULL not in str(error):
            raise
        raise _make_error(str(error), text, dataset, options) from error


def _make_error(said: str, text: Path, dataset: Path, options: Options) -> StageError:
    shape = _read_shape(text)
    tokens = options.pack_tokens or _find_longest(dataset)
    needed = _model_bytes(shape, options, tokens)
    changes = list_changes(shape, options, tokens)
    device = torch.cuda.get_device_properties() if on_gpu() else None
    room = f" of {device.total_memory / 1e9:.1f} GB" if device else ""
    return StageError(
        "the memory is full",
        on=f"{device.name if device else 'this host'}: {said.splitlines()[0]}",
        why=f"by the plan's model this takes {needed / 1e9:.1f} GB{room}, with rows of {tokens:,}"
        f" tokens, {options.batch_size} to a micro-step",
        then="change one or more in the recipe:\n        " + "\n        ".join(changes),
    )


def _read_shape(text: Path) -> Shape:
    config = read_config(text / CONFIG)
    if is_listed(config):
        return parse_shape(config, on=CONFIG)
    held = sum(path.stat().st_size for path in text.glob("model*.safetensors"))
    return model_shape(config, base_bytes=held, on=CONFIG)


def list_changes(shape: Shape, options: Options, tokens: int) -> list[str]:
    """Return each change that lowers the peak, with the bytes that it saves; those that leave the
    result as it is come first, then the one that saves most."""
    now = _model_bytes(shape, options, tokens)
    found = [
        (not keeps, now - _model_bytes(shape, changed, length), words)
        for words, keeps, changed, length in _list_candidates(options, tokens)
    ]
    ordered = sorted((each for each in found if each[1] > 0), key=lambda each: (each[0], -each[1]))
    return [f"{words}: {saved / 1e9:.1f} GB less" for _, saved, words in ordered]


def _list_candidates(options: Options, tokens: int) -> Iterator[tuple[str, bool, Options, int]]:
    """Yield words, whether the result stays the same but for rounding, the options, the length."""
    half, double = options.batch_size // 2, options.gradient_accumulation * 2
    if half:
        words = f"train.batch_size = {half} and train.gradient_accumulation = {double}"
        yield words, True, replace(options, batch_size=half), tokens
    if on_gpu() and not options.activation_offload:
        words = "train.activation_offload = true (slower)"
        yield words, True, replace(options, activation_offload=True), tokens
    if on_gpu() and options.optimizer != PAGED_ADAMW_8BIT:
        words = f'train.optimizer = "{PAGED_ADAMW_8BIT}"'
        yield words, False, replace(options, optimizer=PAGED_ADAMW_8BIT), tokens
    if options.rank > 1 and options.method != FULL:
        words = f"train.rank = {options.rank // 2}"
        yield words, False, replace(options, rank=options.rank // 2), tokens
    if tokens > _LEAST_TOKENS:
        shorter = -(-tokens // (2 * _LEAST_TOKENS)) * _LEAST_TOKENS
        field = "train.pack_tokens" if options.pack_tokens else "dataset.sequence_length"
        yield f"{field} = {shorter}", False, options, shorter
    if options.method != QLORA:
        yield f'train.method = "{QLORA}"', False, replace(options, method=QLORA), tokens


def _find_longest(dataset: Path) -> int:
    with pa.memory_map(str(dataset / "train.arrow")) as source:
        lengths = pa.ipc.open_stream(source).read_all().column("length")
        return int(pc.max(lengths).as_py())


def _model_bytes(shape: Shape, options: Options, tokens: int) -> int:
    form = TrainingForm(
        method=options.method,
        rank=options.rank,
        target_modules=options.target_modules,
        batch_size=options.batch_size,
        accumulation=options.gradient_accumulation,
        sequence=tokens,
        optimizer=options.optimizer,
        checkpointing=options.gradient_checkpointing,
        offloads=options.activation_offload,
        on_gpu=on_gpu(),
        whole_modules=len(options.modules_to_save),
    )
    return model_training(shape, form).total_bytes
