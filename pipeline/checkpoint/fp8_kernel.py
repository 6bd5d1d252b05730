"""FP8 -> BF16 by the kernel (kquants_fp8.h), many times as fast as by torch and equal to the bit.

It is used where the environment has it and the CPU can run it, and only after it has given torch's
bits for every code. Calls may run in many threads at once: ctypes releases the interpreter's lock.
"""

import ctypes
import functools
from pathlib import Path

import torch

from pipeline.checkpoint.kernel_file import find_kernel
from pipeline.log import say

_DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)

# Of both ends of float32, one that rounds to even on either side, and 256 times which is too much.
_SAMPLE_SCALES = (1e-40, 1.0078125, 0.0013, 3e38)


class _Job(ctypes.Structure):
    """kquants_fp8.h: Fp8Job."""

    _fields_ = (
        ("codes", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("first", ctypes.c_int64),
        ("scales", ctypes.c_void_p),
        ("scale_columns", ctypes.c_int64),
        ("block_rows", ctypes.c_int64),
        ("block_columns", ctypes.c_int64),
        ("is_e5m2", ctypes.c_int32),
    )


class Fp8Kernel:
    """The kernel at `path`; it may only be asked for anything while `works`."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.kquants_fp8.restype = None
        self.works = bool(self._library.kquants_lanes()) and self._gives_the_same_bits()

    def dequantize(
        self, weight_OI: torch.Tensor, scales_PQ: torch.Tensor, block: tuple[int, int], start: int
    ) -> torch.Tensor:
        """Return the BF16 rows of FP8 rows, the first of them row `start` of its weight.

        A scale, in float32, is shared by `block` rows and columns; there is one for every row.
        """
        rows, columns = weight_OI.shape
        assert weight_OI.dtype in _DTYPES and scales_PQ.dtype == torch.float32
        assert start + rows <= len(scales_PQ) * block[0]
        assert columns <= scales_PQ.shape[1] * block[1]
        codes, scales = weight_OI.contiguous(), scales_PQ.contiguous()
        found_OI = torch.empty((rows, columns), dtype=torch.bfloat16)
        job = _Job(
            codes=codes.data_ptr(),
            out=found_OI.data_ptr(),
            rows=rows,
            columns=columns,
            first=start,
            scales=scales.data_ptr(),
            scale_columns=scales.shape[1],
            block_rows=block[0],
            block_columns=block[1],
            is_e5m2=weight_OI.dtype == torch.float8_e5m2,
        )
        self._library.kquants_fp8(ctypes.byref(job))
        return found_OI

    def _gives_the_same_bits(self) -> bool:
        """Compare every code with torch: the kernel may have been compiled otherwise."""
        codes = torch.arange(256, dtype=torch.uint8).expand(len(_SAMPLE_SCALES), -1).contiguous()
        scales = torch.tensor(_SAMPLE_SCALES)[:, None]
        for dtype in _DTYPES:
            found = self.dequantize(codes.view(dtype), scales, (1, 256), 0)
            expected = (codes.view(dtype).float() * scales).bfloat16()
            # Which NaN it is, torch itself makes by place.
            is_number = ~expected.isnan()
            if not torch.equal(found.isnan(), expected.isnan()) or not torch.equal(
                found[is_number].view(torch.int16), expected[is_number].view(torch.int16)
            ):
                return False
        return True


@functools.cache
def load_fp8_kernel() -> Fp8Kernel | None:
    """Return this environment's kernel, None where it has none that works here."""
    path = find_kernel()
    kernel = Fp8Kernel(path) if path else None
    if kernel is not None and kernel.works:
        return kernel
    why = "this CPU cannot run it" if path else "this environment has none"
    say(f"note: FP8 goes through tables, without the faster kernel: {why}")
    return None
