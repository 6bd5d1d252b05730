"""A safetensors checkpoint, read strictly and lazily, and written shard by shard.

In: a directory with `model.safetensors`, or with `model.safetensors.index.json` and the shards that
it names. Everything a header can tell is checked before the first tensor is read, so that a bad
checkpoint fails in a second and not after an hour. Out: the same layout with equal bytes for
equal tensors; at most one shard is in memory.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pipeline.checkpoint.safetensors_file import write_safetensors
from pipeline.checkpoint.safetensors_header import TensorEntry, read_header, refuse_shard
from pipeline.errors import StageError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a directory by name; none is read before it is asked for."""

    directory: Path
    entries: Mapping[str, TensorEntry]

    @property
    def shard_names(self) -> tuple[str, ...]:
        return tuple(sorted({entry.shard.name for entry in self.entries.values()}))

    def read(self, name: str) -> torch.Tensor:
        """Return one tensor, on the CPU, in the dtype that it is stored in."""
        with safe_open(self.entries[name].shard, framework="pt") as shard:
            tensor: torch.Tensor = shard.get_tensor(name)
        return tensor


def read_checkpoint(directory: Path) -> Checkpoint:
    """Return the directory's checkpoint, its index and all headers checked against one another.

    Raises StageError naming file and tensor: a shard missing or truncated, a tensor that the index
    names and its shard lacks, or that a shard holds and the index does not give to it.
    """
    if not (directory / INDEX).is_file():
        return read_single(directory / SINGLE)
    weight_map = _read_index(directory / INDEX)
    if (directory / SINGLE).is_file() and SINGLE not in weight_map.values():
        raise StageError(
            "the checkpoint holds two sets of weights",
            on=f"{SINGLE} and {INDEX}",
            why="the index does not name the single file, so it is unclear which one is meant",
            then="remove one of the two",
        )
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
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        sound = bool(weight_map) and all(isinstance(each, str) for each in weight_map.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        refuse_shard("the index is unreadable", path, "it is no JSON object with a weight_map")
    for name, shard in weight_map.items():
        # A shard is a plain name beside the index: anything else could read outside the directory.
        if Path(shard).name != shard or not shard.endswith(".safetensors") or "\\" in shard:
            why = f"{shard!r} is no plain name of a safetensors file beside it"
            refuse_shard("the index points outside the checkpoint", path, why, tensor=name)
    return dict(weight_map)


class ShardWriter:
    """Writes tensors in the order they come, at most `shard_bytes` to a file.

    How many shards there are is known only at the end, so they are renamed then.
    """

    def __init__(self, out: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._out = out
        self._shard_bytes = shard_bytes
        self._waiting: dict[str, torch.Tensor] = {}
        self._waiting_bytes = 0
        self._written: list[tuple[str, ...]] = []
        self._total_bytes = 0

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Take one tensor; a full shard is written before it is taken."""
        assert all(name not in names for names in (self._waiting, *self._written)), name
        if self._waiting and self._waiting_bytes + tensor.nbytes > self._shard_bytes:
            self._write()
        self._waiting[name] = tensor.contiguous()
        self._waiting_bytes += tensor.nbytes
        self._total_bytes += tensor.nbytes

    def finish(self) -> None:
        """Write what waits, give the shards their names, and write the index if there are many."""
        if self._waiting:
            self._write()
        count = len(self._written)
        if count == 1:
            self._temporary(1).rename(self._out / SINGLE)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._written, start=1):
            shard = f"model-{number:05d}-of-{count:05d}.safetensors"
            self._temporary(number).rename(self._out / shard)
            weight_map |= dict.fromkeys(names, shard)
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        write_json(self._out / INDEX, index)

    def _write(self) -> None:
        self._written.append(tuple(self._waiting))
        write_safetensors(self._waiting, self._temporary(len(self._written)))
        self._waiting = {}
        self._waiting_bytes = 0

    def _temporary(self, number: int) -> Path:
        return self._out / f"shard-{number:05d}.safetensors"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write JSON in one canonical form: sorted, indented by two, one newline at the end."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
