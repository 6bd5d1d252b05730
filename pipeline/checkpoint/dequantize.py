"""FP8 weights and their scales -> BF16 weights. Pure: tensors in, tensors out.

Despite its name, `weight_scale_inv` is multiplied (transformers 5.23, `FP8Linear`; llama.cpp,
`dequant_simple`). One product in float32 is rounded once to BF16.
"""

import torch

from pipeline.errors import StageError


def dequantize(weight_OI: torch.Tensor, scale: torch.Tensor, *, name: str) -> torch.Tensor:
    """Return the BF16 weight of one FP8 weight and its per-tensor scale (one number, BF16 or F32).

    Raises StageError for a scale of another shape, or one that is no positive number.
    """
    if scale.numel() != 1:
        raise StageError(
            "a quantized weight has a scale of a form that is not supported",
            on=name,
            why=f"one scale per tensor is supported, and this one has shape {tuple(scale.shape)}",
            then="use a checkpoint in BF16, or in FP8 with weight_block_size null",
        )
    if not (torch.isfinite(scale).all() and (scale > 0).all()):
        raise StageError(
            "a quantized weight has a scale that cannot be",
            on=name,
            why=f"the scale is {scale.item()}",
            then="copy or download the checkpoint again",
        )
    return (weight_OI.float() * scale.float()).bfloat16()
