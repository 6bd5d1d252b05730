"""A published checkpoint and an adapter -> the final text-only weights, read row by row.

Whatever headers, configs, scales and the adapter's names can tell is checked when they are opened;
after that each row is read from the memory-mapped shards, dequantized, and the adapter's change is
added, without a copy of the checkpoint on the disk or in memory: rows that are asked for, and twice
as much while an adapter is added. Threads may read at the same time; a product of the adapter
uses torch's own threads besides, so callers that have several set those to one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint.chosen_template import choose_template
from pipeline.checkpoint.dequantize import Scale, dequantize, make_scale
from pipeline.checkpoint.lora import ROW_BLOCK, Adapter, read_adapter
from pipeline.checkpoint.lora_config import make_error
from pipeline.checkpoint.names import NamePlan, plan_names
from pipeline.checkpoint.other_family import is_listed, plan_other, say_taken
from pipeline.checkpoint.quantization import read_block
from pipeline.checkpoint.safetensors_header import TensorEntry
from pipeline.checkpoint.shards import Checkpoint, read_checkpoint, split_rows, write_json
from pipeline.checkpoint.text_config import CONFIG, make_text_config, read_config, says_tied
from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.checkpoint.tokenizer_files import (
    CHAT_TEMPLATE,
    copy_tokenizer,
    read_chat_template,
)
from pipeline.errors import StageError

# In an adapter's directory; one that was trained elsewhere does not have it.
BASE_DIGEST = "base.sha256"

# Bits of BF16, whose order without the sign is that of the numbers: infinity, and 100. An FP8
# weight whose scale was forgotten reaches 448; real projections stay below 10.
_INFINITY_BITS, _SANE_BITS = 0x7F80, 0x42C8

_HEAD = "lm_head.weight"

_SCALES = ("BF16", "F16", "F32")
_FLOATS = (*_SCALES, "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True, kw_only=True)
class TextWeights:
    """The text model of a checkpoint with an adapter merged in.

    `shapes` holds every tensor in the order of a text-only checkpoint; `names` says which tensors
    of `source` it comes from.
    """

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    source: Checkpoint
    names: NamePlan
    scales: Mapping[str, Scale]
    adapter: Adapter | None

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows [start, stop) of one final weight: BF16, contiguous, not to be written to.

        Their bits are the same for every slab that begins at a multiple of ROW_BLOCK.
        Raises StageError when a weight is not finite, or so large that its scale must be lost.
        """
        assert start % ROW_BLOCK == 0, "products of the adapter are made in blocks of rows"
        rows = self._read_base(name, start, stop)
        if self.adapter is not None:
            rows = self.adapter.apply(name, rows, start)
        return check_sane(rows.contiguous(), name)

    def digest_base(self) -> str:
        """Return the sha256 that tells this base from another, in whichever layout it comes.

        It covers name, shape and the first rows of each weight in BF16. To read them all would take
        as long as a conversion; what changes a model's weights changes some of these.
        """
        found = sha256()
        for name, shape in sorted(self.shapes.items()):
            rows = self._read_base(name, 0, min(ROW_BLOCK, shape[0]))
            found.update(f"{name} {shape}\n".encode())
            found.update(rows.contiguous().view(torch.uint8).numpy())
        return found.hexdigest()

    def _read_base(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return the rows in BF16, without the adapter."""
        rows = self.source.read_rows(self.names.weights[name], start, stop)
        if name in self.scales:
            return dequantize(rows, self.scales[name], start)
        return rows.bfloat16()


def open_weights(base: Path, adapter: Path | None = None) -> TextWeights:
    """Return the final weights of a published (or text-only) checkpoint and an adapter for it.

    Raises StageError, naming file and tensor, for whatever is wrong with either.
    """
    source = read_checkpoint(base)
    # First, since other quantizations have other names too.
    block = read_block(read_config(base / CONFIG))
    names = _plan_names(source)
    config = _make_config(base, names)
    shapes = _list_shapes(config, source, names)
    weights = TextWeights(
        config=config,
        shapes=shapes,
        source=source,
        names=names,
        scales={
            name: make_scale(source.read(each), shapes[name], block, name=each)
            for name, each in names.scales.items()
        },
        adapter=None
        if adapter is None
        else read_adapter(
            adapter, shapes, tied=_HEAD not in names.weights, listed=is_listed(config)
        ),
    )
    if adapter is not None and (adapter / BASE_DIGEST).is_file():
        _check_digest(weights, adapter / BASE_DIGEST)
    return weights


def write_base_digest(text: Path, adapter: Path) -> None:
    """Write beside an adapter which base it was trained on; `open_weights` refuses another one."""
    digest = open_weights(text).digest_base()
    (adapter / BASE_DIGEST).write_text(f"{digest}\n", encoding="ascii")


def write_small_files(base: Path, out: Path, chat_template: str = "") -> None:
    """Write what a text-only checkpoint has beside its weights.

    config.json, generation_config.json, the tokenizer's files and the chat template: the base's
    own, unless another is given.
    """
    own = "" if chat_template else read_chat_template(base)
    names = _plan_names(read_checkpoint(base))
    write_json(out / CONFIG, _make_config(base, names))
    copy_tokenizer(base, out)
    if chat_template:
        choose_template(out, chat_template)
    else:
        (out / CHAT_TEMPLATE).write_bytes(own.encode("utf-8"))


def _plan_names(source: Checkpoint) -> NamePlan:
    """Return what becomes of each tensor.

    Some checkpoints with tied embeddings hold them a second time as the output head: that is left
    out, as transformers leaves it, when it is the same to the bit.
    """
    config = read_config(source.directory / CONFIG)
    if not is_listed(config):
        return plan_other(config, source.entries)
    names = plan_names(source.entries)
    head, embeddings = (names.weights.get(name) for name in (_HEAD, "model.embed_tokens.weight"))
    if head is None or embeddings is None or not says_tied(config):
        return names
    first, second = (source.entries[name] for name in (head, embeddings))
    if (first.dtype, first.shape) != (second.dtype, second.shape) or not all(
        torch.equal(source.read_rows(head, *slab), source.read_rows(embeddings, *slab))
        for slab in split_rows(first.shape)
    ):
        return names
    kept = {name: each for name, each in names.weights.items() if name != _HEAD}
    return replace(names, weights=kept, dropped=(*names.dropped, head))


def _make_config(base: Path, names: NamePlan) -> dict[str, Any]:
    generation = base / "generation_config.json"
    return make_text_config(
        read_config(base / CONFIG),
        read_config(generation) if generation.is_file() else {},
        has_head=_HEAD in names.weights,
    )


def _list_shapes(
    config: Mapping[str, Any], source: Checkpoint, names: NamePlan
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the final weights: the config's, which the tensors must have."""
    if not is_listed(config):
        say_taken(config, source.entries)
        return {name: source.entries[each].shape for name, each in names.weights.items()}
    shapes = list_tensor_shapes(config)
    _check_tensors(source, names, shapes)
    return shapes


def _check_digest(weights: TextWeights, path: Path) -> None:
    recorded, found = path.read_bytes().strip(), weights.digest_base()
    if recorded != found.encode():
        why = (
            f"it was trained on {recorded[:64].decode('ascii', 'replace')}, and this one is {found}"
        )
        raise make_error(f"{path.name}, digest of the base", why)


def _check_tensors(
    source: Checkpoint, names: NamePlan, expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a checkpoint whose weights are not those that its config asks for."""
    for name in sorted({*expected} ^ {*names.weights}):
        raise StageError(
            "the weights are not those of the config",
            on=names.weights.get(name, name),
            why="the config asks for it, and it is missing"
            if name in expected
            else "the config does not ask for it: it has fewer layers, or another vocabulary head",
            then="get config.json and the weights from the same version of the model",
        )
    for name, shape in expected.items():
        _check_entry(source.entries[names.weights[name]], shape)
    for name in names.scales.values():
        if source.entries[name].dtype not in _SCALES:
            raise StageError(
                "a quantized weight has a scale that cannot be",
                on=f"{source.entries[name].shard.name}, tensor {name}",
                why=f"it is {source.entries[name].dtype}, no plain float",
                then="use a checkpoint in BF16, or in FP8 with plain scales",
            )


def _check_entry(entry: TensorEntry, shape: tuple[int, ...]) -> None:
    if entry.shape != shape or entry.dtype not in _FLOATS:
        raise StageError(
            "a weight is not of the config's size",
            on=f"{entry.shard.name}, tensor {entry.name}",
            why=f"it is {entry.dtype} {entry.shape}, and the config asks for a float {shape}",
            then="get config.json and the weights from the same version of the model",
        )


def check_sane(weight: torch.Tensor, name: str) -> torch.Tensor:
    """Return the BF16 weight.

    Raises StageError when it is not finite, or so large that its scale must have been lost.
    """
    bits = weight.view(torch.int16).numpy()
    # As unsigned numbers the negative ones are the largest; as signed ones the positive.
    largest = max(int(bits.max()), int(bits.view(np.uint16).max()) & 0x7FFF)
    if largest >= (_SANE_BITS + 1 if weight.dim() > 1 else _INFINITY_BITS):
        found = weight.abs().max().item()
        raise StageError(
            "a weight is not sane",
            on=name,
            why=f"its largest magnitude is {found:g}: damaged, or its FP8 scale was lost",
            then="copy or download the checkpoint again",
        )
    return weight
