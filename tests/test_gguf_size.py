"""Sizes of the flagship against published and measured figures."""

import pytest

from pipeline.decoder_shape import Shape, parse_shape
from pipeline.errors import UsageError
from pipeline.gguf_size import sum_file_bytes, sum_tensor_bytes
from pipeline.gguf_types import parse_override

_DEVSTRAL_SMALL_2 = {
    "tie_word_embeddings": False,
    "text_config": {
        "model_type": "ministral3",
        "num_hidden_layers": 40,
        "hidden_size": 5120,
        "intermediate_size": 32768,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 131072,
    },
}


@pytest.fixture
def shape() -> Shape:
    return parse_shape(_DEVSTRAL_SMALL_2, on="config.json")


def test_parameters_of_the_flagship(shape: Shape) -> None:
    assert shape.count_parameters() == 23_572_403_200
    adapted = shape.layers * sum(16 * sum(pair) for pair in shape.list_projections().values())
    assert adapted == 92_405_760


@pytest.mark.parametrize(
    ("file_type", "size"),
    [
        ("Q4_K_M", 14_326_026_240),
        ("Q5_K_M", 16_756_101_120),
        ("Q6_K", 19_338_055_680),
        ("Q8_0", 25_046_896_640),
        ("BF16", 47_145_635_840),
        ("F16", 47_145_635_840),
    ],
)
def test_tensor_bytes_of_the_flagship(shape: Shape, file_type: str, size: int) -> None:
    assert sum_tensor_bytes(shape, file_type) == size


def test_an_overridden_type_counts(shape: Shape) -> None:
    plain = sum_tensor_bytes(shape, "Q8_0")
    overridden = sum_tensor_bytes(shape, "Q8_0", [parse_override("attn_v=Q6_K")])
    assert plain - overridden == 40 * 1024 * 5120 // 256 * (8 * 34 - 210)


def test_file_bytes_of_the_flagship_are_near_a_published_file(shape: Shape) -> None:
    assert sum_file_bytes(shape, "Q4_K_M") == pytest.approx(14_334_446_752, rel=2e-4)


def test_a_config_that_is_no_decoder_is_refused() -> None:
    with pytest.raises(UsageError, match="dense decoder"):
        parse_shape({"model_type": "bert"}, on="config.json")
