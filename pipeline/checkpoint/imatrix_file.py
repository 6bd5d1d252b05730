"""imatrix.gguf, as llama-imatrix writes it -> the importance of each weight's columns.

For each weight that a layer multiplies by, the file holds the sums of the squared inputs of its
columns (`NAME.in_sum2`) and how many inputs there were (`NAME.counts`); what the quantizer weighs
its errors by is their mean, taken here as llama-quantize takes it. Not for mixtures of experts,
which have several counts to a tensor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from pipeline.checkpoint.llama_source import import_gguf
from pipeline.errors import StageError

# Also what quantize.imatrix.file says: llama-quantize stores the path as it is given.
IMATRIX = "imatrix.gguf"

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, kw_only=True)
class Imatrix:
    """The importance of each column (float32) by the weight's name in a GGUF.

    `dataset` and `chunks` are what a GGUF made with it says of where it comes from.
    """

    path: Path
    columns: Mapping[str, np.ndarray]
    dataset: str
    chunks: int

    def check(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Raise StageError unless it covers the layers' weights among these tensors, and no others.

        llama-quantize goes on without what is missing: part of the model would be worse than the
        rest, and nothing would tell.
        """
        due = {
            name: shape[-1]
            for name, shape in shapes.items()
            if name.startswith("blk.") and len(shape) > 1
        }
        for name in sorted({*due} ^ {*self.columns}):
            _refuse(name, "it is missing" if name in due else "the model has no such weight")
        for name, columns in due.items():
            if len(self.columns[name]) != columns:
                found = len(self.columns[name])
                _refuse(name, f"it covers {found} columns, and the weight has {columns}")


def read_imatrix(path: Path) -> Imatrix:
    """Return the importance matrix in the file.

    Raises StageError, naming the tensor, for what is not finite, empty or has no counterpart.
    """
    try:
        reader = import_gguf().GGUFReader(path)
    except (IndexError, ValueError) as error:
        _refuse("the file", f"it cannot be read: {error}")
    keys = ("imatrix.datasets", "imatrix.chunk_count")
    datasets, chunks = (_read_value(reader, key) for key in keys)
    if not datasets or not chunks:
        _refuse("the file", f"it does not say {keys[1] if datasets else keys[0]}")
    tensors = {each.name: each for each in reader.tensors}
    names = {name.removesuffix(_SUMS).removesuffix(_COUNTS) for name in tensors}
    return Imatrix(
        path=path,
        columns={name: _read_columns(tensors, name) for name in sorted(names)},
        dataset=datasets[0],
        chunks=chunks,
    )


def _read_columns(tensors: Mapping[str, Any], name: str) -> np.ndarray:
    if name + _SUMS not in tensors or name + _COUNTS not in tensors:
        _refuse(name, f"{_COUNTS if name + _SUMS in tensors else _SUMS} is missing")
    sums, counts = (tensors[name + part].data.reshape(-1) for part in (_SUMS, _COUNTS))
    if sums.dtype != np.float32 or counts.dtype != np.float32 or len(counts) != 1:
        _refuse(name, f"it is {sums.dtype} with {len(counts)} counts, not float32 with one")
    if not counts[0] > 0:
        _refuse(name, "no text has passed through it")
    if not np.isfinite(sums).all():
        _refuse(name, "there is a NaN or an infinity in it")
    return np.ascontiguousarray(sums / counts[0])


def _read_value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _refuse(name: str, why: str) -> NoReturn:
    raise StageError(
        "the importance matrix cannot be used",
        on=f"{IMATRIX}, {name}",
        why=why,
        then="it belongs to one model alone: build again, and it is made from this one",
    )
