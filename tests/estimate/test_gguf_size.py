"""Sizes of published models against published and measured figures."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.estimate.base_config import find_config, find_shipped
from pipeline.estimate.estimate import estimate
from pipeline.estimate.gguf_metadata import make_size_label
from pipeline.estimate.gguf_size import (
    FileForm,
    GgufSize,
    measure_metadata,
    size_file,
    sum_tensor_bytes,
)
from pipeline.estimate.shape import Shape, parse_shape
from pipeline.estimate.training import count_trainable
from pipeline.gguf_types import FILE_TYPES, parse_override
from pipeline.project import RECIPES
from pipeline.recipe.recipe import read_recipe
from tests.estimate.shapes import DEVSTRAL, MISTRAL_22B, make_form, read_shipped_shape


@pytest.fixture
def shape() -> Shape:
    return read_shipped_shape(DEVSTRAL)


def plan(name: str, file_type: str) -> GgufSize:
    config = find_config(name)
    assert config is not None
    shape = parse_shape(config.config, on=config.on)
    metadata = measure_metadata(config, shape, name="x", planning=True)
    return size_file(shape, FileForm(file_type=file_type), metadata, is_listed=True)


def test_parameters_of_the_flagship(shape: Shape) -> None:
    """Published: 92,405,760 of 23,664,808,960, the base and the adapter together."""
    trained = count_trainable(shape, make_form(rank=16))
    assert trained == 92_405_760
    assert shape.count_parameters() + trained == 23_664_808_960


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


def test_a_published_file_of_the_flagship_is_explained() -> None:
    """Its metadata has scores as well, and a chat template and a model card's keys."""
    published = 14_334_446_752
    scores = 8 + len("tokenizer.ggml.scores") + 4 + 12 + 4 * 131_072
    rest = published - scores - plan(DEVSTRAL, "Q4_K_M").size_bytes
    assert 5_000 < rest < 20_000


# Published of the 22B model, in GB; differences in docs/plan.md.
@pytest.mark.parametrize(
    ("file_type", "published_gb"),
    [("Q4_K_M", 13.45), ("Q5_K_M", 15.74), ("Q6_K", 18.22), ("Q8_0", 23.56), ("F16", 44.35)],
)
def test_a_published_table_of_the_22b_model_is_near(file_type: str, published_gb: float) -> None:
    assert plan(MISTRAL_22B, file_type).size_bytes == pytest.approx(published_gb * 1e9, rel=0.01)


def test_parameters_of_the_22b_model() -> None:
    assert read_shipped_shape(MISTRAL_22B).count_parameters() == 22_247_282_688


def test_a_config_that_is_no_decoder_is_refused() -> None:
    with pytest.raises(UsageError, match="dense decoder"):
        parse_shape({"model_type": "bert"}, on="config.json")


@pytest.mark.parametrize(
    ("parameters", "label"),
    [(23_572_403_200, "24B"), (7_248_023_552, "7.2B"), (950_000, "950K"), (1_500, "1.5K")],
)
def test_a_size_label_has_two_digits(parameters: int, label: str) -> None:
    assert make_size_label(parameters) == label


@given(layers=st.integers(1, 90), file_type=st.sampled_from(list(FILE_TYPES)), tied=st.booleans())
def test_a_layer_more_never_makes_a_smaller_file(layers: int, file_type: str, tied: bool) -> None:
    def measure(count: int) -> int:
        return sum_tensor_bytes(
            Shape(
                layers=count,
                hidden=512,
                ffn=1024,
                heads=8,
                kv_heads=2,
                head_dim=64,
                vocabulary=1000,
                tied=tied,
                architecture="mistral3",
                norms=(("attn_norm", "H"), ("ffn_norm", "H")),
                frequencies=0,
            ),
            file_type,
            has_imatrix=True,
        )

    assert measure(layers) < measure(layers + 1)


def test_the_demonstrations_files_are_as_large_as_the_readme_says() -> None:
    """Its tokenizer is always the same, so that nothing need be at hand."""
    sizes = estimate(read_recipe(RECIPES / "demo.toml"))
    assert sizes.gguf_bytes == {"BF16": 2_116_544, "Q8_0": 1_133_504, "Q4_K_M": 668_352}
    assert all(each.is_exact for each in sizes.gguf.values())
    assert sizes.base_bytes == pytest.approx(1_801_339, rel=0.001)
    assert sizes.text_bytes == 2_136_345
    assert sizes.rows_bytes == pytest.approx(841_600, rel=0.01)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": [1]}}'),
        ("tokenizer.json", '{"model": {"vocab": {}}, "added_tokens": [{}]}'),
        ("tokenizer.model", "\x0a"),
        ("tokenizer.model", "\x0a\x02\x0a\x7f"),
    ],
)
def test_a_tokenizer_that_is_damaged_leaves_a_plan(tmp_path: Path, name: str, content: str) -> None:
    shutil.copy(find_shipped(DEVSTRAL) / "config.json", tmp_path / "config.json")
    (tmp_path / name).write_text(content)
    found = plan(str(tmp_path), "Q4_K_M")
    assert not found.is_exact
    assert found.why
