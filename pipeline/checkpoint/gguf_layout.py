"""llama.cpp's own converter on stand-ins for the weights -> what a GGUF will hold, and from where.

The converter runs as it always does, on lazy tensors of the right shapes: metadata, vocabulary,
tensor names, order and shapes are its own. What it does to a weight's rows is learnt by giving it
rows that say which they are. A tensor whose rows it only selects and reorders can be streamed;
small ones (norms, biases, frequency factors) go through it whole. Anything else is not covered, and
the caller must let the converter itself write the file.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint.imatrix_file import IMATRIX, Imatrix
from pipeline.checkpoint.llama_source import (
    find_file_type,
    find_model_class,
    import_conversion,
    import_gguf,
)
from pipeline.checkpoint.other_family import is_listed
from pipeline.checkpoint.pre_tokenizer import known_splits
from pipeline.checkpoint.shard_plan import SHARD_BYTES, share_out
from pipeline.checkpoint.weights import TextWeights, write_small_files
from pipeline.errors import StageError
from pipeline.gguf_types import (
    CONVERTED,
    Decoder,
    Override,
    choose_types,
    count_row_bytes,
    needs_importance,
)

# Architectures whose tensor types follow pipeline/gguf_types.py.
ARCHITECTURES = ("gemma3", "llama", "mistral3", "qwen3")

ALIGNMENT = 32

# What the converter raises for a key, a file, a tensor or a form that it did not reckon with.
_STUMBLES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError,
    RuntimeError, TypeError, ValueError,
)  # fmt: skip

# A probe's columns; no reshape by heads or head size divides a prime like this one.
_PROBE_COLUMNS = 7
_WHOLE_MAX_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Uncovered:
    """Why the converter itself has to write this file."""

    why: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """One tensor of the file, and where its rows come from.

    Either `whole` holds its values, or it is rows of the weight `source`, of which `rows` gives the
    numbers (None: the weight as it is). `importance` is that of its columns, where there is one.
    `offset` counts from the file's start.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int = 0
    source: str = ""
    rows: np.ndarray | None = None
    whole: np.ndarray | None = None
    importance: np.ndarray | None = None

    @property
    def row_bytes(self) -> int:
        return count_row_bytes(self.type, self.shape[-1])

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.shape[:-1], dtype=np.int64)) * self.row_bytes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A file whose header is written and whose tensors are still to come."""

    targets: tuple[Target, ...]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """What goes into a file: the weights, and a directory with the config and the tokenizer."""

    weights: TextWeights
    directory: Path


@dataclass(frozen=True, kw_only=True)
class Form:
    """How a file is asked for."""

    type: str
    model_name: str
    overrides: tuple[Override, ...] = ()
    imatrix: Imatrix | None = None


def write_header(source: Source, form: Form, path: Path) -> Layout | Uncovered:
    """Write the file's metadata and tensor table; return where each tensor goes.

    The bytes are those of the converter and, for a quantized type, of llama-quantize after it.
    """
    if not is_listed(source.weights.config):
        _rehearse(source, form, path)
        return Uncovered(why=f"family {source.weights.config.get('model_type')}")
    with known_splits(source.directory), _stand_ins(source.weights), torch.inference_mode():
        model = make_converter(source.directory, form, path)
        if model.gguf_writer.arch not in ARCHITECTURES:
            return Uncovered(why=f"tensor types of architecture {model.gguf_writer.arch}")
        passed = _record(model)
        model.prepare_tensors()
        model.prepare_metadata(vocab_only=False)
        del model.modify_tensors  # recorded; now to be asked again
        targets = _find_targets(model, passed, source.weights)
    if isinstance(targets, Uncovered):
        return targets
    return _write(model.gguf_writer, targets, source.weights.config, form, path)


def check_converter(weights: TextWeights, base: Path, chat_template: str) -> None:
    """Raise StageError unless the converter gets through the model; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "model"
        small.mkdir()
        write_small_files(base, small, chat_template)
        form = Form(type="BF16", model_name="model")
        _rehearse(Source(weights=weights, directory=small), form, small / "model.gguf")


def _rehearse(source: Source, form: Form, path: Path) -> None:
    """Refuse a model that the converter stumbles over before hours go into its checkpoint."""
    try:
        with known_splits(source.directory), _stand_ins(source.weights), torch.inference_mode():
            model = make_converter(source.directory, form, path)
            model.prepare_tensors()
            model.prepare_metadata(vocab_only=False)
    except _STUMBLES as error:
        raise StageError(
            "llama.cpp's converter fails on this model",
            on=f"config.json, model_type {source.weights.config.get('model_type')}",
            why=f"it says {error!r}"[:400],
            then="add what it asks for (a file of the tokenizer, a key of the config) to the base, "
            "or use a base that the pinned llama.cpp supports",
        ) from error


def make_converter(directory: Path, form: Form, path: Path) -> Any:
    """Return llama.cpp's converter for the checkpoint in the directory, to be run once.

    Parts of the directory's name become metadata: call it `model`.
    """
    assert directory.name == "model"
    hparams = import_conversion().ModelBase.load_hparams(directory, is_mistral_format=False)
    model_class = find_model_class(hparams["architectures"][0])
    converted = form.type if form.type in CONVERTED else "BF16"
    file_type = import_gguf().LlamaFileType(find_file_type(converted))
    model = model_class(directory, file_type, path, model_name=form.model_name)
    # Mistral 3's class is a shell around the one that does the work, with a writer of its own.
    return getattr(model, "impl", model)


@contextmanager
def _stand_ins(weights: TextWeights) -> Iterator[None]:
    """Let the converter find lazy tensors in place of files.

    One that it looks into is read whole: that costs memory and changes nothing.
    """
    conversion = import_conversion()
    base, lazy = conversion.ModelBase, conversion.base.LazyTorchTensor
    upstream = base.index_tensors

    def index_tensors(self: Any, remote_hf_model_id: str | None = None) -> dict[str, Any]:
        del remote_hf_model_id
        found = {}
        for name in _list_in_file_order(weights):
            meta = lazy.meta_with_dtype_and_shape(torch.bfloat16, weights.shapes[name])
            tensor = lazy(meta=meta, args=(name,), func=lambda each: _read(weights, each))
            if item := self.filter_tensors((name, lambda tensor=tensor: tensor)):
                found[item[0]] = item[1]
        return found

    base.index_tensors = index_tensors
    try:
        yield
    finally:
        base.index_tensors = upstream


def _list_in_file_order(weights: TextWeights) -> list[str]:
    """Return the names as the shards of `merged` hold them: the converter keeps that order."""
    return [name for shard in share_out(weights.shapes, SHARD_BYTES) for name in sorted(shard)]


def _read(weights: TextWeights, name: str) -> torch.Tensor:
    return weights.read_rows(name, 0, weights.shapes[name][0])


@dataclass(frozen=True, kw_only=True)
class _Passed:
    """One tensor's way through the converter."""

    name: str
    layer: int | None
    results: list[tuple[str, Any]]


def _record(model: Any) -> list[_Passed]:
    """Return a list that fills as tensors pass the converter's `modify_tensors`."""
    upstream = model.modify_tensors
    passed: list[_Passed] = []

    def modify_tensors(data: Any, name: str, bid: int | None) -> list[tuple[str, Any]]:
        results = list(upstream(data, name, bid))
        passed.append(_Passed(name=name, layer=bid, results=results))
        return results

    model.modify_tensors = modify_tensors
    return passed


def _find_targets(
    model: Any, passed: list[_Passed], weights: TextWeights
) -> list[Target] | Uncovered:
    """Return the converter's tensors in its order, with its types."""
    targets = []
    for each in passed:
        if len(each.results) != 1:
            return Uncovered(why=f"{each.name} becomes {len(each.results)} tensors")
        found = _find_target(model, each, weights)
        if isinstance(found, Uncovered):
            return found
        targets.append(found)
    written = model.gguf_writer.tensors[0]
    if list(written) != [each.name for each in targets]:
        return Uncovered(why="the converter adds tensors of its own")
    return targets


def _find_target(model: Any, passed: _Passed, weights: TextWeights) -> Target | Uncovered:
    ((name, result),) = passed.results
    info = model.gguf_writer.tensors[0][name]
    target = Target(name=name, shape=tuple(info.shape), type=info.dtype.name)
    is_eager = isinstance(result, torch.Tensor)
    if is_eager or len(target.shape) < 2 or name.endswith("_norm.weight"):
        if np.prod(target.shape, dtype=np.int64) * 4 > _WHOLE_MAX_BYTES:
            return Uncovered(why=f"{passed.name} is changed as a whole, and it is large")
        if not is_eager:
            ((_, result),) = model.modify_tensors(
                _read(weights, passed.name).float(), passed.name, passed.layer
            )
        return replace(target, whole=result.float().contiguous().numpy())
    if passed.name not in weights.shapes or len(target.shape) != 2:
        return Uncovered(why=f"{passed.name} has another form than rows and columns")
    rows = _probe(model, passed, weights.shapes[passed.name], target.shape)
    if rows is None:
        return Uncovered(why=f"{passed.name} is more than reordered")
    is_identity = np.array_equal(rows, np.arange(weights.shapes[passed.name][0]))
    return replace(target, source=passed.name, rows=None if is_identity else rows)


def _probe(
    model: Any, passed: _Passed, shape: tuple[int, ...], due: tuple[int, ...]
) -> np.ndarray | None:
    """Return which row of the weight each row of the result is; None when it is no such thing.

    The first column says which row it is, the others are random: rows that are scaled, summed or
    have their columns reordered are found out.
    """
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand((shape[0], _PROBE_COLUMNS), generator=generator)
    probe[:, 0] = torch.arange(shape[0])
    results = list(model.modify_tensors(probe.clone(), passed.name, passed.layer))
    if [name for name, _ in results] != [name for name, _ in passed.results]:
        return None
    found = results[0][1]
    if found.shape != (due[0], _PROBE_COLUMNS) or due[1] != shape[1]:
        return None
    rows = found[:, 0].long()
    if rows.min() < 0 or rows.max() >= shape[0] or not torch.equal(probe[rows], found):
        return None
    return rows.numpy()


def _write(
    writer: Any, found: list[Target], config: Mapping[str, Any], form: Form, path: Path
) -> Layout | Uncovered:
    if form.type not in CONVERTED:
        chosen = _choose(found, writer.arch, config, form)
        if isinstance(chosen, Uncovered):
            return chosen
        found = chosen
        _order_metadata(writer, form)
        tensors = {each.name: writer.tensors[0][each.name] for each in found}
        for target in found:
            tensors[target.name].dtype = import_gguf().GGMLQuantizationType[target.type]
            tensors[target.name].nbytes = target.size_bytes
        writer.tensors = [tensors]
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    targets, offset = [], _pad(path.stat().st_size)
    for target in found:
        targets.append(replace(target, offset=offset))
        offset += _pad(target.size_bytes)
    return Layout(targets=tuple(targets), size_bytes=offset)


def _choose(
    found: list[Target], architecture: str, config: Mapping[str, Any], form: Form
) -> list[Target] | Uncovered:
    """Return the targets in the quantizer's order and with its types."""
    heads = config["num_attention_heads"]
    decoder = Decoder(
        architecture=architecture,
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
    )
    by_name = {each.name: each for each in found}
    shapes = {each.name: each.shape for each in found}
    imatrix = form.imatrix
    types = choose_types(
        form.type, shapes, decoder, form.overrides, has_imatrix=imatrix is not None
    )
    for name, converted in choose_types("BF16", shapes, decoder).items():
        if by_name[name].type != converted:
            return Uncovered(why=f"{name} is {by_name[name].type} before it is quantized")
    if imatrix is not None:
        imatrix.check(shapes)
    importance = {} if imatrix is None else imatrix.columns
    for name, each in types.items():
        if needs_importance(name, each, form.type) and name not in importance:
            raise StageError(
                "a tensor needs an importance matrix, and there is none for it",
                on=f"{name} as {each}",
                why="with so few bits, columns rounded all alike leave no usable model",
                then="set gguf.calibration in the recipe, or give the tensor a larger type",
            )
    return [
        replace(by_name[name], type=each, importance=importance.get(name))
        for name, each in types.items()
    ]


def _order_metadata(writer: Any, form: Form) -> None:
    """Put the keys that llama-quantize sets where it puts them: at the end."""
    values = writer.kv_data[0]
    version = values.pop("general.quantization_version")
    values.pop("general.file_type")
    values["general.quantization_version"] = version
    writer.add_file_type(find_file_type(form.type))
    if form.imatrix is not None:
        writer.add_string("quantize.imatrix.file", IMATRIX)
        writer.add_string("quantize.imatrix.dataset", form.imatrix.dataset)
        writer.add_uint32("quantize.imatrix.entries_count", len(form.imatrix.columns))
        writer.add_uint32("quantize.imatrix.chunks_count", form.imatrix.chunks)


def _pad(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
