"""Which kernel computes attention: never one that holds a score for every pair of tokens.

PyTorch chooses among fused kernels, which keep a few numbers per token, and a plain one, which
materialises scores of heads x tokens x tokens and takes over silently where no fused one can. Here
the plain one is forbidden, and the model's own heads are tried, forward and backward, before hours
of training end in its memory. Rows of unequal length in one batch, and packs, add a mask of a few
bytes for each pair of tokens, which all heads share.
"""

import warnings
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from pipeline.errors import StageError
from pipeline.log import say

_FUSED = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
}
_TOKENS = 128


def check_attention(model: PreTrainedModel) -> dict[str, list[str]]:
    """Forbid the kernel that materialises all scores; return which others take this model, by the
    kind of rows.

    Raises StageError, with PyTorch's own reasons, when none does.
    """
    assert model.config._attn_implementation == "sdpa", "another attention would be used"
    torch.backends.cuda.enable_math_sdp(False)  # on a CPU too, whatever its name
    found: dict[str, list[str]] = {}
    for rows, has_mask in (("of equal length", False), ("padded or packed", True)):
        why = {name: _try(kernel, model, has_mask) for name, kernel in _FUSED.items()}
        if all(why.values()):
            raise StageError(
                "no kernel computes this model's attention without holding every score",
                on=f"rows {rows}, {_find_dtype(model)}, {model.device}",
                why="; ".join(f"{name}: {each}" for name, each in why.items()),
                then="train on a GPU of compute capability 8.0 or newer; more in PyTorch's"
                " documentation of scaled_dot_product_attention",
            )
        found[rows] = [name for name, each in why.items() if not each]
        say(f"  attention on rows {rows}: {' or '.join(found[rows])}")
    return found


def _try(kernel: SDPBackend, model: PreTrainedModel, has_mask: bool) -> str:
    """Return why the kernel cannot take the model's heads, forward and backward; "" when it can."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with sdpa_kernel(kernel):
                found = _attend(model, has_mask)
            found.sum().backward()
        except RuntimeError as error:
            told = [str(each.message).split(" (Triggered")[0] for each in caught]
            return " ".join(told) or str(error)
    return ""


def _attend(model: PreTrainedModel, has_mask: bool) -> torch.Tensor:
    """Return attention over a few random tokens, as transformers asks for it."""
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    form: dict[str, Any] = {
        "dtype": _find_dtype(model),
        "device": model.device,
        "requires_grad": True,
    }
    generator = torch.Generator(model.device).manual_seed(0)
    heads = config.num_attention_heads
    # With a mask transformers repeats the key-value heads itself.
    kv_heads = heads if has_mask else config.num_key_value_heads
    query, key, value = (
        torch.randn((1, count, _TOKENS, size), generator=generator, **form)
        for count in (heads, kv_heads, kv_heads)
    )
    mask = torch.ones(_TOKENS, _TOKENS, dtype=torch.bool, device=model.device).tril()
    return scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask[None, None] if has_mask else None,
        is_causal=not has_mask,
        enable_gqa=kv_heads != heads,
    )


def _find_dtype(model: PreTrainedModel) -> torch.dtype:
    """Return what attention is computed in: on a GPU the trainer's autocast sees to it."""
    return torch.bfloat16 if model.device.type == "cuda" else model.dtype
