"""Memory of training: parts against what they are made of, and more never needs less."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.estimate.shape import Shape
from pipeline.estimate.training import count_trainable, model_training
from pipeline.sft.names import PROJECTIONS
from tests.estimate.shapes import DEVSTRAL, make_form, read_shipped_shape

GIB = 1 << 30


@pytest.fixture(scope="module")
def shape() -> Shape:
    return read_shipped_shape(DEVSTRAL)


def test_weights_of_the_flagship_in_4_bits(shape: Shape) -> None:
    """Published: it loads in 13.5 GB, the process's own among them."""
    parts = model_training(shape, make_form()).parts
    quantized = 22_229_811_200
    assert parts["weights_4bit"] == quantized // 2
    assert parts["scales"] == quantized // 64 + 4 * quantized // 64 // 256
    assert parts["weights_16bit"] == 2 * (23_572_403_200 - quantized)
    loaded = sum(parts[each] for each in ("weights_4bit", "scales", "weights_16bit", "context"))
    assert loaded / GIB == pytest.approx(13.5, rel=0.03)


def test_an_adapter_is_held_with_its_gradient_and_two_moments(shape: Shape) -> None:
    parts = model_training(shape, make_form()).parts
    assert parts["adapters"] == parts["gradients"] == 4 * 92_405_760
    assert parts["optimizer"] == 8 * 92_405_760
    small = model_training(shape, make_form(optimizer="adamw_8bit")).parts
    assert small["optimizer"] == pytest.approx(2 * 92_405_760, rel=0.02)


def test_the_flagship_trains_on_24_gb_at_its_published_sequence(shape: Shape) -> None:
    """Published: 21.2 GB in use, by another trainer that keeps activations in host memory."""
    total = model_training(shape, make_form()).total_bytes / GIB
    assert 17 < total < 23.5


def test_what_is_kept_follows_from_the_tokens(shape: Shape) -> None:
    once, twice = (model_training(shape, make_form(sequence=each)) for each in (2048, 4096))
    assert once.parts["activations"] == 2 * 2048 * 5120 * 40
    assert twice.parts["activations"] == 2 * once.parts["activations"]
    assert twice.layer_bytes > 1.7 * once.layer_bytes
    offloaded = model_training(shape, make_form(offloads=True))
    assert offloaded.parts["activations"] == 0
    assert offloaded.host_bytes - once.host_bytes == once.parts["activations"]


def test_logits_are_never_held_in_full(shape: Shape) -> None:
    for sequence in (2048, 8192, 32768):
        memory = model_training(shape, make_form(sequence=sequence))
        assert memory.logits_bytes < 2 * sequence * shape.vocabulary
        assert memory.parts["working_set"] == memory.layer_bytes > memory.logits_bytes


def test_modules_that_are_trained_whole_count(shape: Shape) -> None:
    plain, whole = (make_form(whole_modules=each) for each in (0, 2))
    more = count_trainable(shape, whole) - count_trainable(shape, plain)
    assert more == 2 * 131_072 * 5120


@st.composite
def _shapes(draw: st.DrawFn) -> Shape:
    return Shape(
        layers=draw(st.integers(1, 80)),
        hidden=256 * draw(st.integers(1, 32)),
        ffn=256 * draw(st.integers(1, 128)),
        heads=draw(st.integers(1, 64)),
        kv_heads=draw(st.integers(1, 8)),
        head_dim=32 * draw(st.integers(1, 8)),
        vocabulary=draw(st.integers(1, 300_000)),
        tied=draw(st.booleans()),
        architecture="mistral3",
        norms=(("attn_norm", "H"), ("ffn_norm", "H")),
        frequencies=0,
    )


@given(
    shape=_shapes(),
    method=st.sampled_from(["lora", "qlora", "full"]),
    sequence=st.integers(8, 65536),
    more=st.sampled_from(["rank", "sequence", "batch_size", "layers", "modules", "whole_modules"]),
    on_gpu=st.booleans(),
    checkpointing=st.booleans(),
)
def test_more_never_needs_less(
    shape: Shape, method: str, sequence: int, more: str, on_gpu: bool, checkpointing: bool
) -> None:
    form = make_form(
        method=method,
        sequence=sequence,
        on_gpu=on_gpu,
        checkpointing=checkpointing,
        target_modules=PROJECTIONS[:3],
    )
    larger, wider = form, shape
    match more:
        case "layers":
            wider = replace(shape, layers=shape.layers + 1)
        case "modules":
            larger = replace(form, target_modules=PROJECTIONS)
        case _:
            larger = replace(form, **{more: getattr(form, more) + 1})
    less, much = model_training(shape, form), model_training(wider, larger)
    assert all(less.parts[name] <= much.parts[name] for name in less.parts)
    assert less.host_bytes <= much.host_bytes
    assert count_trainable(shape, form) <= count_trainable(wider, larger)
