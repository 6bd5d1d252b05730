"""One product in float32, rounded once to BF16."""

import pytest
import torch

from pipeline.checkpoint.dequantize import dequantize
from pipeline.errors import StageError

pytestmark = pytest.mark.convert

FP8 = torch.float8_e4m3fn


def test_weight_times_scale_by_hand() -> None:
    weight = torch.tensor([[1.0, -448.0], [0.0625, 0.0]]).to(FP8)
    found = dequantize(weight, torch.tensor(0.5).bfloat16(), name="w")
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[0.5, -224.0], [0.03125, 0.0]]


def test_it_is_rounded_once() -> None:
    # 1.125 * 1.0078125 = 1.1337890625; the BF16 neighbours are 1.1328125 and 1.140625.
    weight = torch.tensor([1.125]).to(FP8)
    assert dequantize(weight, torch.tensor(1.0078125), name="w").item() == 1.1328125


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        (torch.ones(2, 1), r"shape \(2, 1\)"),
        (torch.tensor(0.0), "the scale is 0"),
        (torch.tensor(-1.0), "the scale is -1"),
        (torch.tensor(torch.nan), "the scale is nan"),
    ],
)
def test_other_scales_are_refused(scale: torch.Tensor, words: str) -> None:
    with pytest.raises(StageError, match=words) as error:
        dequantize(torch.ones(2, 2).to(FP8), scale, name="some.weight")
    assert error.value.on == "some.weight"
