"""A LoRA adapter as PEFT writes it -> what becomes of each weight: W + s B A, or another W.

s is alpha / r (rsLoRA: alpha / sqrt(r)), each module's own where the config has patterns; the sum
is made in float32 and rounded once to BF16, as PEFT's merge_and_unload does. All of the adapter is
applied, or it is refused: every pair must fit a weight, and every module that the config targets
must have a pair.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.checkpoint.lora_config import LoraConfig, is_named, make_error, read_lora_config
from pipeline.checkpoint.names import find_weight
from pipeline.checkpoint.safetensors_header import TensorEntry
from pipeline.checkpoint.shards import Checkpoint, read_single

ADAPTER = "adapter_model.safetensors"

# Products of fewer rows go through other kernels, whose sums differ in the last bit.
ROW_BLOCK = 32

_FLOATS = ("BF16", "F16", "F32")

_PREFIX = "base_model.model."
_FACTOR_NAME = re.compile(re.escape(_PREFIX) + r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_SAVED_NAME = re.compile(re.escape(_PREFIX) + r"(?P<module>.+)\.weight")

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The two factors of one weight's change, by their names in the adapter."""

    a_name: str
    b_name: str
    scaling: float


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter, by the names of the weights that it changes.

    `saved` names the tensors that take a weight's place (modules_to_save).
    """

    tensors: Checkpoint
    pairs: Mapping[str, Pair]
    saved: Mapping[str, str]

    def __str__(self) -> str:
        scalings = sorted({f"{pair.scaling:g}" for pair in self.pairs.values()})
        count = f"{len(self.pairs)} of {len(self.pairs)} modules"
        whole = f", {len(self.saved)} whole weights" if self.saved else ""
        return f"{count}, scaling {' and '.join(scalings)}{whole}" if scalings else count + whole

    def apply(self, name: str, rows_OI: torch.Tensor, start: int) -> torch.Tensor:
        """Return the rows of a weight, the first of them row `start`, with the adapter's change."""
        stop = start + len(rows_OI)
        if name in self.saved:
            return self.tensors.read_rows(self.saved[name], start, stop).bfloat16()
        if (pair := self.pairs.get(name)) is None:
            return rows_OI
        a_RI = self.tensors.read(pair.a_name)
        b_OR = self.tensors.read_rows(pair.b_name, start, stop)
        return merge(rows_OI, a_RI, b_OR, pair.scaling)


def merge(
    weight_OI: torch.Tensor, a_RI: torch.Tensor, b_OR: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Return bf16(W + s B A), rounded once. Pure.

    The bits of a row do not depend on how many rows come with it.
    """
    rows = len(b_OR)
    padded_OR = torch.nn.functional.pad(b_OR.float(), (0, 0, 0, -rows % ROW_BLOCK))
    change_OI = (padded_OR @ a_RI.float())[:rows]
    return change_OI.mul_(scaling).add_(weight_OI).bfloat16()


def read_adapter(directory: Path, shapes: _Shapes, *, tied: bool, listed: bool = True) -> Adapter:
    """Return the adapter for a text-only checkpoint of these tensors.

    `tied` says whether its output head is its embeddings, `listed` whether its family is in the
    table, so that its linear modules are known. Raises StageError for whatever would not
    be merged by the formula above, and for an adapter that is not whole, fits another checkpoint,
    or changes nothing.
    """
    config = read_lora_config(directory)
    tensors = read_single(directory / ADAPTER)
    for entry in tensors.entries.values():
        if entry.dtype not in _FLOATS:
            raise make_error(f"tensor {entry.name}", f"it is {entry.dtype}, no plain float")
    sides, saved = _sort_tensors(tensors, config, shapes)
    for name, saved_name in saved.items():
        _check_saved(tensors.entries[saved_name], name, shapes[name], tied=tied)
    pairs = {name: _make_pair(name, each, config, tensors) for name, each in sides.items()}
    for name, pair in pairs.items():
        _check_shapes(tensors, pair, name, shapes[name])
    adapter = Adapter(tensors=tensors, pairs=pairs, saved=saved)
    _check_whole(config, shapes, adapter, listed=listed)
    _check_change(adapter)
    return adapter


def _sort_tensors(
    tensors: Checkpoint, config: LoraConfig, shapes: _Shapes
) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Return the names of A and B, and those of whole weights, per weight; none is left over."""
    sides: dict[str, dict[str, str]] = {}
    saved: dict[str, str] = {}
    for name in tensors.entries:
        if match := _FACTOR_NAME.fullmatch(name):
            taken, key = sides.setdefault(_find(match["module"], name, shapes), {}), match["side"]
        elif (match := _SAVED_NAME.fullmatch(name)) and is_named(match["module"], config.saved):
            taken, key = saved, _find(match["module"], name, shapes)
        else:
            raise make_error(f"tensor {name}", "it is no factor of a LoRA pair, nor a saved module")
        if key in taken:
            raise make_error(f"tensors {taken[key]} and {name}", "both change the same weight")
        taken[key] = name
    return sides, saved


def _find(module: str, name: str, shapes: _Shapes) -> str:
    """Return the weight's name in the text-only checkpoint."""
    own = f"{module}.weight"
    for weight in (find_weight(own), own):
        if weight is not None and weight in shapes:
            return weight
    raise make_error(f"tensor {name}", f"the checkpoint has no {own}")


def _make_pair(
    weight: str, sides: Mapping[str, str], config: LoraConfig, tensors: Checkpoint
) -> Pair:
    if len(sides) != 2:
        why = f"the other factor of {weight} is missing"
        raise make_error(f"tensor {min(sides.values())}", why)
    # Patterns are written for the modules' names in training.
    module = sides["A"].removeprefix(_PREFIX).removesuffix(".lora_A.weight")
    rank, found = config.find_rank(module), tensors.entries[sides["A"]].shape
    if found[:1] != (rank,):
        raise make_error(f"tensor {sides['A']}", f"its shape is {found}, and its rank {rank:g}")
    return Pair(a_name=sides["A"], b_name=sides["B"], scaling=config.find_scaling(module))


def _check_shapes(tensors: Checkpoint, pair: Pair, weight: str, shape: tuple[int, ...]) -> None:
    a, b = tensors.entries[pair.a_name], tensors.entries[pair.b_name]
    if shape != (*b.shape[:1], *a.shape[1:]) or b.shape[1:] != a.shape[:1]:
        why = f"A {a.shape} and B {b.shape} do not fit {weight} {shape}"
        raise make_error(f"tensor {a.name}", why)


def _check_saved(entry: TensorEntry, weight: str, shape: tuple[int, ...], *, tied: bool) -> None:
    if entry.shape != shape:
        why = f"it is {entry.shape}, and {weight} is {shape}"
        raise make_error(f"tensor {entry.name}", why)
    if tied and weight == "model.embed_tokens.weight":
        why = "the embeddings were trained apart from the output head, and the checkpoint ties them"
        raise make_error(f"tensor {entry.name}", why)


def _check_whole(config: LoraConfig, shapes: _Shapes, adapter: Adapter, *, listed: bool) -> None:
    """Refuse an adapter without the factors or the weight of a module that its config names.

    Which weights are linear modules, the table knows; for another family, only that what one layer
    has, the others have too (experts, say, may be modules of their own, or parts of one parameter).
    """
    adapted = {_blank_numbers(name) for name in adapter.pairs}
    for name, shape in shapes.items():
        module = name.removesuffix(".weight")
        is_known = listed or _blank_numbers(name) in adapted
        is_linear = len(shape) == 2 and module != "model.embed_tokens" and is_known
        if is_linear and config.targets_module(module) and name not in adapter.pairs:
            raise make_error(ADAPTER, f"its config targets {module}, and it has no factors for it")
    saved = [name.removesuffix(".weight") for name in adapter.saved]
    for module in config.saved:
        if not any(is_named(name, (module,)) for name in saved):
            raise make_error(ADAPTER, f"its config saves {module}, and it holds no such weight")


def _blank_numbers(name: str) -> str:
    return re.sub(r"[0-9]+", "0", name)


def _check_change(adapter: Adapter) -> None:
    """Refuse an adapter that was not trained: every B is zero, and nothing else is saved."""
    if not adapter.saved and not any(
        adapter.tensors.read(pair.b_name).any() for pair in adapter.pairs.values()
    ):
        raise make_error(ADAPTER, "merged in, it changes no weight: it was not trained")
