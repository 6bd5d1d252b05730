"""Rows of float32 -> blocks of a tensor type: ggml's own bytes, by ggml or by the lane kernel.

The kernel (`kquants.c`) makes Q4_K, Q5_K, Q6_K, Q8_0 and IQ4_XS many times faster, every byte the
same. It is used where the environment has it and the CPU can run it, and only after it has given
ggml's bytes for sample rows; elsewhere ggml makes everything. Calls may run in many threads at
once: ctypes releases the interpreter's lock, and nothing is shared between them.
"""

import ctypes
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.checkpoint.kernel_file import find_kernel, find_library_dir
from pipeline.errors import StageError
from pipeline.log import say


@dataclass(frozen=True)
class TensorType:
    """ggml's number of the type (ggml.h) and its blocks (ggml-common.h)."""

    number: int
    block_elements: int
    block_bytes: int


TYPES: Mapping[str, TensorType] = {
    "F32": TensorType(0, 1, 4),
    "F16": TensorType(1, 1, 2),
    "BF16": TensorType(30, 1, 2),
    "Q8_0": TensorType(8, 32, 34),
    "Q5_1": TensorType(7, 32, 24),
    "Q5_0": TensorType(6, 32, 22),
    "Q4_1": TensorType(3, 32, 20),
    "Q4_0": TensorType(2, 32, 18),
    "IQ4_NL": TensorType(20, 32, 18),
    "Q6_K": TensorType(14, 256, 210),
    "Q5_K": TensorType(13, 256, 176),
    "Q4_K": TensorType(12, 256, 144),
    "IQ4_XS": TensorType(23, 256, 136),
    "Q3_K": TensorType(11, 256, 110),
    "IQ3_S": TensorType(21, 256, 110),
    "IQ3_XXS": TensorType(18, 256, 98),
    "Q2_K": TensorType(10, 256, 84),
    "IQ2_S": TensorType(22, 256, 82),
    "IQ2_XS": TensorType(17, 256, 74),
    "IQ2_XXS": TensorType(16, 256, 66),
    "IQ1_M": TensorType(29, 256, 56),
    "IQ1_S": TensorType(19, 256, 50),
}

# llama-quant.cpp (tensor_requires_imatrix): without weights these are garbage; ggml itself aborts
# the process for some of them.
NEED_WEIGHTS = frozenset({"IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"})

# tensor type -> the kernel's function, and ggml's for what the kernel leaves to it
_KERNEL_TYPES = {
    "Q4_K": ("kquants_q4_K", "quantize_q4_K"),
    "Q5_K": ("kquants_q5_K", "quantize_q5_K"),
    "Q6_K": ("kquants_q6_K", "quantize_q6_K"),
    "Q8_0": ("kquants_q8_0", "quantize_q8_0"),
    "IQ4_XS": ("kquants_iq4_xs", "quantize_iq4_xs"),
}


class _Job(ctypes.Structure):
    """kquants.c: Job."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("importance", ctypes.c_void_p),
        ("upstream", ctypes.c_void_p),
        ("lanes", ctypes.c_int32),
    )


def row_bytes(tensor_type: str, columns: int) -> int:
    """Return the bytes of one row.

    Raises StageError when the columns are no whole number of blocks.
    """
    blocks = TYPES[tensor_type]
    if columns % blocks.block_elements:
        raise StageError(
            "a row does not divide into blocks",
            on=f"{columns} columns as {tensor_type}",
            why=f"a block of {tensor_type} holds {blocks.block_elements} weights",
            then="give the tensor another type; llama-quantize falls back to Q5_0, Q5_1 or Q8_0",
        )
    return columns // blocks.block_elements * blocks.block_bytes


class Quantizer:
    """ggml of this environment, and the kernel at `kernel` where it can be used.

    `lanes` is the width of the kernel, 0 where ggml makes everything.
    """

    def __init__(self, kernel: Path | None = None, *, most_lanes: int = 16) -> None:
        self._ggml = _load_ggml()
        self._kernel = _load_kernel(kernel) if kernel else None
        self.lanes = min(self._kernel.kquants_lanes(), most_lanes) if self._kernel else 0
        if self.lanes and not self._gives_the_same_bytes():
            self.lanes = 0

    def quantize(
        self, tensor_type: str, rows: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Return uint8 (n, row_bytes) for float32 rows (n, k), C-contiguous.

        `weights` (k) is the importance of each column. Raises StageError for rows that do not
        divide into blocks, for a type that needs weights and has none, for weights that are not
        finite, of which ggml makes numbers that look sound, and where the type cannot hold them.
        """
        made, sound = self._make(tensor_type, rows, weights)
        if sound:
            return made
        if not np.isfinite(rows).all():
            raise _make_error(tensor_type, rows, "there is a NaN or an infinity among them")
        # llama-quantize asks the same of every block.
        if not self._ggml.ggml_validate_row_data(TYPES[tensor_type].number, *_locate(made)):
            raise _make_error(tensor_type, rows, f"{tensor_type} cannot hold their size")
        return made

    def quantize_unchecked(
        self, tensor_type: str, rows: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the same for any rows, sound or not, as ggml does."""
        return self._make(tensor_type, rows, weights)[0]

    def _make(
        self, tensor_type: str, rows: np.ndarray, weights: np.ndarray | None
    ) -> tuple[np.ndarray, bool]:
        """Return the blocks, and whether rows and blocks are known to be sound."""
        assert rows.ndim == 2 and rows.dtype == np.float32 and rows.flags.c_contiguous
        count, columns = rows.shape
        made = np.empty((count, row_bytes(tensor_type, columns)), np.uint8)
        if weights is not None:
            assert weights.dtype == np.float32 and weights.shape == (columns,), weights.shape
            weights = np.ascontiguousarray(weights)
        elif tensor_type in NEED_WEIGHTS:
            raise StageError(
                "a tensor type needs an importance matrix, and there is none",
                on=tensor_type,
                why="with so few bits, weights rounded all alike leave no usable model",
                then="give an importance matrix, or choose IQ4_XS, Q3_K_S or a larger type",
            )
        if rows.size == 0:
            return made, True
        if self.lanes and tensor_type in _KERNEL_TYPES and _are_finite(weights):
            # What is not finite, the kernel leaves to ggml.
            return made, self._run_kernel(tensor_type, rows, made, weights) == 0
        self._run_ggml(tensor_type, rows, made, weights)
        return made, False

    def _run_kernel(
        self, tensor_type: str, rows: np.ndarray, made: np.ndarray, weights: np.ndarray | None
    ) -> int:
        """Return how many blocks the kernel left to ggml."""
        name, upstream = _KERNEL_TYPES[tensor_type]
        count, columns = rows.shape
        job = _Job(
            x=_point(rows),
            out=_point(made),
            rows=count,
            columns=columns,
            importance=_point(weights),
            upstream=ctypes.cast(getattr(self._ggml, upstream), ctypes.c_void_p),
            lanes=self.lanes,
        )
        left: int = getattr(self._kernel, name)(ctypes.byref(job))
        return left

    def _run_ggml(
        self, tensor_type: str, rows: np.ndarray, made: np.ndarray, weights: np.ndarray | None
    ) -> None:
        number = TYPES[tensor_type].number
        count, columns = rows.shape
        chunk = (_point(rows), _point(made), 0, count, columns, _point(weights))
        written = self._ggml.ggml_quantize_chunk(number, *chunk)
        assert written == made.nbytes, (tensor_type, written)

    def _gives_the_same_bytes(self) -> bool:
        """Compare the kernel with ggml: either may have been compiled otherwise than expected."""
        rows = _make_sample_rows()
        for tensor_type in _KERNEL_TYPES:
            for weights in (None, np.abs(rows[-1])):
                ours, theirs = np.zeros((2, len(rows), row_bytes(tensor_type, 256)), np.uint8)
                self._run_kernel(tensor_type, rows, ours, weights)
                self._run_ggml(tensor_type, rows, theirs, weights)
                if not np.array_equal(ours, theirs):
                    return False
        return True


@functools.cache
def load_quantizer() -> Quantizer:
    """Return this environment's quantizer, with the kernel if it has one."""
    kernel = find_kernel()
    quantizer = Quantizer(kernel)
    if not quantizer.lanes:
        why = "this CPU cannot run it" if kernel else "this environment has none"
        say(f"note: ggml alone makes the blocks, without the faster kernel: {why}")
    return quantizer


def quantize(tensor_type: str, rows: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the rows' blocks, as `Quantizer.quantize` of this environment makes them."""
    return load_quantizer().quantize(tensor_type, rows, weights)


def _load_ggml() -> ctypes.CDLL:
    ggml = ctypes.CDLL(str(find_library_dir() / "libggml-base.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    ggml.ggml_quantize_chunk.argtypes = [
        *(ctypes.c_int, pointer, pointer),
        *(size, size, size, pointer),
    ]
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_validate_row_data.argtypes = [ctypes.c_int, pointer, ctypes.c_size_t]
    ggml.ggml_validate_row_data.restype = ctypes.c_bool
    return ggml


def _load_kernel(path: Path) -> ctypes.CDLL:
    kernel = ctypes.CDLL(str(path))
    for name, _ in _KERNEL_TYPES.values():
        getattr(kernel, name).restype = ctypes.c_int64
    return kernel


def _make_error(tensor_type: str, rows: np.ndarray, why: str) -> StageError:
    return StageError(
        "weights cannot be quantized",
        on=f"{len(rows)} rows of {rows.shape[1]} as {tensor_type}",
        why=why,
        then="copy or download the checkpoint again; if it is sound, train the adapter anew",
    )


def _are_finite(weights: np.ndarray | None) -> bool:
    return weights is None or bool(np.isfinite(weights).all())


def _make_sample_rows() -> np.ndarray:
    """Return 33 rows of 256: an odd number, of magnitudes that differ by row."""
    rows = np.random.default_rng(1).standard_normal((33, 256), np.float32)
    scales = np.float32(10.0) ** (np.arange(33, dtype=np.float32)[:, None] - 16)
    return rows * scales


def _point(array: np.ndarray | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def _locate(array: np.ndarray) -> tuple[ctypes.c_void_p, int]:
    return _point(array), array.nbytes
