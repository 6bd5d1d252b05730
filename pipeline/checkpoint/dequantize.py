"""FP8 weights and their scales -> BF16 weights: `(w.float() * scale.float()).bfloat16()`.

Despite their names (`weight_scale_inv` among them), scales are multiplied (transformers 5.23,
`FP8Linear`; llama.cpp, `dequant_simple`). One product in float32 is rounded once to BF16. Torch
converts FP8 code by code; the kernel does so many times as fast, and equal to the bit. Where there
is no kernel, two codes at a time are looked up in a table, in chunks that stay in the cache. Pure:
tensors in, tensors out.

Shapes, by letter: O rows, I columns, P and Q blocks of rows and of columns that share a scale.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from pipeline.checkpoint.fp8_kernel import load_fp8_kernel
from pipeline.errors import StageError

_CHUNK_ELEMENTS = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The scales of one weight, in float32; `block` is the rows and columns that share one."""

    values_PQ: torch.Tensor
    block: tuple[int, int]

    def of_rows(self, start: int, stop: int, columns: int) -> torch.Tensor:
        """Return what rows [start, stop) are multiplied by: [rows, 1] or [rows, columns]."""
        block_rows, block_columns = self.block
        blocks = self.values_PQ[start // block_rows : (stop - 1) // block_rows + 1]
        if 1 < len(blocks) < stop - start:
            blocks = blocks[torch.arange(start, stop) // block_rows - start // block_rows]
        if blocks.shape[1] == 1:
            return blocks
        wide = blocks.unsqueeze(2).expand(-1, -1, block_columns)
        return wide.reshape(len(blocks), -1)[:, :columns]


def make_scale(
    scale: torch.Tensor, shape_OI: tuple[int, ...], block: tuple[int, int] | None, *, name: str
) -> Scale:
    """Return the scales of one weight: per tensor, per channel, or of blocks of that size.

    Raises StageError for scales of another shape, and for ones that are no positive numbers.
    """
    values_PQ, found = scale.float(), None
    if scale.numel() == 1:
        found = Scale(values_PQ=values_PQ.reshape(1, 1), block=(max(shape_OI), max(shape_OI)))
    elif len(shape_OI) == 2 and block is not None:
        grid = tuple(-(-size // each) for size, each in zip(shape_OI, block, strict=True))
        found = Scale(values_PQ=values_PQ, block=block) if scale.shape == grid else None
    elif len(shape_OI) == 2 and scale.shape in (shape_OI[:1], (shape_OI[0], 1)):
        found = Scale(values_PQ=values_PQ.reshape(-1, 1), block=(1, shape_OI[1]))
    if found is None:
        raise StageError(
            "a quantized weight has a scale of a form that is not supported",
            on=name,
            why=f"the weight is {shape_OI}, its scale {tuple(scale.shape)}, and the config's block "
            f"is {block}: it is neither per tensor, nor per channel, nor of such blocks",
            then="use a checkpoint in BF16, or in FP8 whose config says how it is scaled",
        )
    if not (torch.isfinite(values_PQ).all() and (values_PQ > 0).all()):
        bad = values_PQ[~(torch.isfinite(values_PQ) & (values_PQ > 0))]
        raise StageError(
            "a quantized weight has a scale that cannot be",
            on=name,
            why=f"the scale is {bad.flatten()[0].item():g}",
            then="copy or download the checkpoint again",
        )
    return found


def dequantize(weight_OI: torch.Tensor, scale: Scale, start: int = 0) -> torch.Tensor:
    """Return the BF16 rows of FP8 rows (F8_E4M3 or F8_E5M2), the first of them row `start`."""
    if (kernel := load_fp8_kernel()) is not None:
        return kernel.dequantize(weight_OI, scale.values_PQ, scale.block, start)
    return look_up(weight_OI, scale, start)


def look_up(weight_OI: torch.Tensor, scale: Scale, start: int = 0) -> torch.Tensor:
    """Return the same by tables, on any CPU."""
    found_OI = torch.empty(weight_OI.shape, dtype=torch.bfloat16)
    # Rows of an odd length do not hold whole pairs.
    pairs = weight_OI.shape[1] % 2 == 0
    codes = weight_OI.contiguous().view(torch.uint8).numpy()
    codes = codes.view(np.uint16) if pairs else codes
    step = max(_CHUNK_ELEMENTS // max(weight_OI.shape[1], 1), 1)
    if scale.values_PQ.numel() == 1:
        table = _make_scaled_table(weight_OI.dtype, scale.values_PQ.item(), pairs=pairs)
        found = found_OI.view(torch.uint16).numpy().view(table.dtype)
        for begin in range(0, len(codes), step):
            _look_up(table, codes[begin : begin + step], found[begin : begin + step])
        return found_OI
    table = _make_table(weight_OI.dtype, pairs=pairs)
    buffer = np.empty((min(step, len(codes)), codes.shape[1]), table.dtype)
    for begin in range(0, len(codes), step):
        end = min(begin + step, len(codes))
        _look_up(table, codes[begin:end], buffer[: end - begin])
        values_OI = torch.from_numpy(buffer[: end - begin].view(np.float32))
        values_OI *= scale.of_rows(start + begin, start + end, weight_OI.shape[1])
        found_OI[begin:end] = values_OI
    return found_OI


def _look_up(table: Any, codes: Any, out: Any) -> None:
    # Every code is in its table; "clip" only says that they need not be checked before.
    np.take(table, codes, out=out, mode="clip")


@lru_cache(maxsize=8)
def _make_table(dtype: torch.dtype, *, pairs: bool) -> Any:
    """Return float32 values by code, uint32 [256], or by pair of codes, uint64 [65536]."""
    values = _list_codes(dtype).float()
    return _pair(values.numpy().view(np.uint32)) if pairs else values.numpy().view(np.uint32)


@lru_cache(maxsize=8)
def _make_scaled_table(dtype: torch.dtype, scale: float, *, pairs: bool) -> Any:
    """Return BF16 products by code, uint16 [256], or by pair of codes, uint32 [65536]."""
    values = (_list_codes(dtype).float() * torch.tensor(scale)).bfloat16()
    bits = values.view(torch.uint16).numpy()
    return _pair(bits) if pairs else bits


def _list_codes(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(256, dtype=torch.uint8).view(dtype)


def _pair(bits: Any) -> Any:
    """Return two codes' bits by pair of codes; the first is the low one, as in memory."""
    shift = 8 * bits.itemsize
    wide = bits.astype(f"u{2 * bits.itemsize}")
    return (wide[None, :] | wide[:, None] << shift).reshape(-1)
