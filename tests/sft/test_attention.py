"""The kernel is known before training, and the one that holds every score is forbidden."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipeline.errors import StageError
from pipeline.sft.attention import check_attention
from pipeline.sft.model import read_base

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]


def test_a_fused_kernel_takes_the_model(text: Path) -> None:
    found = check_attention(read_base(text, "lora"))
    assert sorted(found) == ["of equal length", "padded or packed"]
    assert all("flash" in kernels for kernels in found.values())


def test_the_plain_kernel_cannot_take_over(text: Path) -> None:
    check_attention(read_base(text, "lora"))
    query = torch.randn(1, 4, 8, 16)
    mask = torch.zeros(1, 1, 8, 8, requires_grad=True)  # no fused kernel has a gradient for it
    with pytest.raises(RuntimeError, match="No (viable|available)"):
        scaled_dot_product_attention(query, query, query, attn_mask=mask)


def test_a_model_that_none_takes_is_refused_with_the_reasons(text: Path) -> None:
    model = read_base(text, "lora").to(torch.float8_e4m3fn)
    with pytest.raises(StageError, match="without holding every score") as caught:
        check_attention(model)
    assert "flash: " in caught.value.why
    assert "float8" in caught.value.on
