"""A safetensors checkpoint, read strictly and lazily, and written shard by shard.

In: a directory with `model.safetensors`, or with `model.safetensors.index.json` and the shards that
it names. Everything a header can tell is checked before the first tensor is read, so that a bad
checkpoint fails in a second and not after an hour. Out: the same layout with equal bytes for
equal tensors; a slab of rows is in memory.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.safetensors_header import (
    DTYPE_BYTES,
    TensorEntry,
    make_header,
    parse_object,
    read_header,
    refuse_shard,
)
from pipeline.checkpoint.shard_plan import (
    INDEX,
    SHARD_BYTES,
    SINGLE,
    dump_json,
    make_index,
    name_shards,
    share_out,
)
from pipeline.errors import StageError

_SHARD_NAME = re.compile(r"\w[\w.+-]{0,200}\.safetensors", re.ASCII)
_NUMBERED = re.compile(r"model-\d+-of-\d+\.safetensors")

# What is in memory at a time: 8 MiB of BF16, in rows (32 of them at least).
SLAB_ELEMENTS = 1 << 22

_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a directory by name; none is read before it is asked for.

    What is read lies in the file's own memory-mapped pages: nothing is copied, and nothing may be
    written to it. Threads may read at the same time.
    """

    directory: Path
    entries: Mapping[str, TensorEntry]
    _mapped: dict[Path, mmap] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def shard_names(self) -> tuple[str, ...]:
        return tuple(sorted({entry.shard.name for entry in self.entries.values()}))

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor, on the CPU, in the dtype that it is stored in."""
        entry = self.entries[name]
        return self._view(entry, 0, entry.size_bytes).reshape(entry.shape)

    def read_rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Return rows [start, stop) of one tensor of at least one dimension."""
        entry = self.entries[name]
        rows, *rest = entry.shape
        assert 0 <= start <= stop <= rows, f"{name} has no rows {start} to {stop}"
        row_bytes = prod(rest) * DTYPE_BYTES[entry.dtype]
        return self._view(entry, start * row_bytes, stop * row_bytes).reshape(stop - start, *rest)

    def _view(self, entry: TensorEntry, begin: int, end: int) -> torch.Tensor:
        """Return bytes [begin, end) of a tensor in its dtype."""
        dtype = _DTYPES[entry.dtype]
        if begin == end:
            return torch.empty(0, dtype=dtype)
        mapped = self._map(entry.shard)
        offset = 8 + int.from_bytes(mapped[:8], "little") + entry.begin + begin
        found = torch.frombuffer(mapped, dtype=torch.uint8, count=end - begin, offset=offset)
        # The format aligns the first tensor alone: one behind an odd number of bytes is moved.
        return (found if offset % dtype.itemsize == 0 else found.clone()).view(dtype)

    def _map(self, shard: Path) -> mmap:
        """Return the shard, mapped once; pages are the page cache's while nobody writes to them."""
        if shard not in self._mapped:
            with shard.open("rb") as file:
                # Two threads may both come here; the mapping that loses is dropped.
                self._mapped.setdefault(shard, mmap(file.fileno(), 0, access=ACCESS_COPY))
        return self._mapped[shard]


def read_checkpoint(directory: Path) -> Checkpoint:
    """Return the directory's checkpoint, its index and all headers checked against one another.

    Raises StageError naming file and tensor: a shard missing or truncated, a tensor that the index
    names and its shard lacks, or that a shard holds and the index does not give to it.
    """
    if not (directory / INDEX).is_file():
        found = read_single(directory / SINGLE)
        _check_set(directory, {SINGLE})
        return found
    weight_map = _read_index(directory / INDEX)
    _check_set(directory, set(weight_map.values()))
    due: dict[str, set[str]] = {}
    for name, shard_name in weight_map.items():
        due.setdefault(shard_name, set()).add(name)
    for shard_name in sorted(due):
        if not (directory / shard_name).is_file():
            names = due[shard_name]
            why = f"{INDEX} names it for {len(names)} tensors, {min(names)} among them"
            refuse_shard("a shard is missing", directory / shard_name, why)
    entries: dict[str, TensorEntry] = {}
    for shard_name in sorted(due):
        entries |= _read_shard(directory / shard_name, due[shard_name])
    return Checkpoint(directory=directory, entries=entries)


def read_single(path: Path) -> Checkpoint:
    """Return the tensors of one file, its header checked.

    Raises StageError when it is missing or damaged.
    """
    if not path.is_file():
        raise StageError(
            "the checkpoint has no weights",
            on=path.name,
            why=f"it is not there, nor is an index ({INDEX}) that names other files",
            then="copy or download the checkpoint again, with its index",
        )
    entries = {entry.name: entry for entry in read_header(path)}
    return Checkpoint(directory=path.parent, entries=entries)


def _read_shard(shard: Path, due: set[str]) -> dict[str, TensorEntry]:
    """Return the shard's tensors, which must be exactly those that the index gives to it."""
    found = {entry.name: entry for entry in read_header(shard)}
    for name in sorted(due - set(found)):
        why = f"{INDEX} says that it is there: index and shard are from different versions"
        refuse_shard("a shard lacks a tensor", shard, why, tensor=name)
    for name in sorted(set(found) - due):
        why = f"{INDEX} does not say that it is there: a duplicate, or another version"
        refuse_shard("a shard holds a tensor too many", shard, why, tensor=name)
    return found


def _read_index(path: Path) -> dict[str, str]:
    repeated = ""
    try:
        index, repeated = parse_object(path.read_bytes())
        weight_map = index["weight_map"]
        sound = bool(weight_map) and all(isinstance(each, str) for each in weight_map.values())
    except (ValueError, KeyError, AttributeError, RecursionError):
        sound = False
    if not sound:
        refuse_shard("the index is unreadable", path, "it is no JSON object with a weight_map")
    if repeated:
        refuse_shard("the index names something twice", path, "it is damaged", tensor=repeated)
    for name, shard in weight_map.items():
        # A shard is a plain name beside the index: anything else could read outside the directory.
        if _SHARD_NAME.fullmatch(shard) is None:
            why = f"{shard[:100]!r} is no plain name of a safetensors file beside it"
            refuse_shard("the index points outside the checkpoint", path, why, tensor=name)
    return dict(weight_map)


def _check_set(directory: Path, named: Collection[str]) -> None:
    """Refuse files of another set of weights: it would be unclear which one is meant."""
    if (directory / SINGLE).is_file() and SINGLE not in named:
        raise StageError(
            "the checkpoint holds two sets of weights",
            on=f"{SINGLE} and {INDEX}",
            why="the index does not name the single file, so it is unclear which one is meant",
            then="remove one of the two",
        )
    for path in sorted(directory.iterdir()):
        if _NUMBERED.fullmatch(path.name) and path.name not in named:
            why = f"{INDEX} does not name it: it is of another version, or the index is"
            refuse_shard("there is a shard too many", path, why)


def write_checkpoint(
    out: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read_rows: Callable[[str, int, int], torch.Tensor],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write BF16 tensors, at most `shard_bytes` to a file unless one tensor alone is larger.

    `read_rows` gives rows [start, stop) of a tensor; only they are in memory. A shard is what the
    safetensors library would write of its tensors, byte for byte.
    """
    shards = share_out(shapes, shard_bytes)
    if len(shards) == 1:
        _write_shard(out / SINGLE, shards[0], read_rows)
        return
    for name, part in zip(name_shards(len(shards)), shards, strict=True):
        _write_shard(out / name, part, read_rows)
    write_json(out / INDEX, make_index(shards))


def _write_shard(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    read_rows: Callable[[str, int, int], torch.Tensor],
) -> None:
    with path.open("xb") as file:
        file.write(make_header({name: ("BF16", shape) for name, shape in shapes.items()}))
        for name in sorted(shapes):
            for start, stop in split_rows(shapes[name]):
                rows = read_rows(name, start, stop)
                file.write(rows.contiguous().view(torch.uint8).numpy())


def split_rows(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the rows [start, stop) of slabs of a bounded size, each start a multiple of 32."""
    rows, *rest = shape
    step = max(SLAB_ELEMENTS // max(prod(rest), 1) // 32 * 32, 32)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one canonical form: sorted, indented by two, one newline at the end."""
    path.write_bytes(dump_json(value))
