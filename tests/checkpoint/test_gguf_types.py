"""The table of tensor types against the pinned library's own function, over many shapes."""

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint.llama_source import find_file_type, import_gguf
from pipeline.estimate.gguf_size import list_tensors
from pipeline.estimate.shape import Shape
from pipeline.gguf_types import (
    BLOCKS,
    CONVERTED,
    FILE_TYPES,
    NEED_IMATRIX,
    Decoder,
    Override,
    choose_types,
    count_row_bytes,
    order_tensors,
    parse_override,
)

pytestmark = pytest.mark.convert

_QUANTIZED = tuple(name for name in FILE_TYPES if name not in CONVERTED)
_NORMS = (("attn_norm", "H"), ("ffn_norm", "H"), ("attn_q_norm", "D"), ("post_ffw_norm", "H"))


class _Model(ctypes.Structure):
    """llama_quant_model_desc (src/llama-ext.h)."""

    _fields_ = (
        ("architecture", ctypes.c_char_p),
        *(
            (name, ctypes.c_uint32)
            for name in ("embd", "ff", "layer", "head", "head_kv", "expert", "head_k", "head_v")
        ),
    )


class _InitParams(ctypes.Structure):
    """ggml_init_params."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


@cache
def _load() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Return libllama and libggml-base, silent; the functions' C++ names are mangled."""
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    folder = Path(sys.prefix) / "llama" / "lib"
    llama, ggml = (ctypes.CDLL(str(folder / f"lib{name}.so")) for name in ("llama", "ggml-base"))
    for library, name in [
        (ggml, "ggml_init"),
        (ggml, "ggml_new_tensor"),
        (llama, "_Z31llama_quant_model_from_metadataPK22llama_quant_model_desc"),
        (llama, "_Z16llama_quant_initPK11llama_modelPK27llama_model_quantize_params"),
    ]:
        getattr(library, name).restype = ctypes.c_void_p
    return llama, ggml


_silence = llama_cpp.llama_log_callback(lambda level, text, data: None)


def _make_tensors(ggml: Any, context: Any, shapes: Mapping[str, Sequence[int]]) -> Any:
    tensors = (ctypes.c_void_p * len(shapes))()
    for index, (name, shape) in enumerate(shapes.items()):
        sizes = (ctypes.c_int64 * len(shape))(*reversed(shape))
        number = 30 if len(shape) > 1 else 0  # BF16, F32
        tensor = ctypes.c_void_p(ggml.ggml_new_tensor(context, number, len(shape), sizes))
        ggml.ggml_set_name(tensor, name.encode())
        tensors[index] = tensor
    return tensors


def _ask_llama(
    file_type: str,
    shapes: Mapping[str, Sequence[int]],
    decoder: Decoder,
    overrides: Sequence[Override],
) -> dict[str, str]:
    llama, ggml = _load()
    model = _Model(
        *(decoder.architecture.encode(), 256, 256, decoder.layers),
        *(decoder.heads, decoder.kv_heads, 0, 64, 64),
    )
    handle = ctypes.c_void_p(
        llama._Z31llama_quant_model_from_metadataPK22llama_quant_model_desc(ctypes.byref(model))
    )
    numbers = import_gguf().GGMLQuantizationType
    asked = (llama_cpp.llama_model_tensor_override * (len(overrides) + 1))()
    for index, each in enumerate(overrides):
        asked[index].pattern, asked[index].type = each.pattern.encode(), int(numbers[each.type])
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = find_file_type(file_type)
    if overrides:
        parameters.tt_overrides = asked
    state = ctypes.c_void_p(
        llama._Z16llama_quant_initPK11llama_modelPK27llama_model_quantize_params(
            handle, ctypes.byref(parameters)
        )
    )
    context = ctypes.c_void_p(ggml.ggml_init(_InitParams(mem_size=8 << 20, no_alloc=True)))
    tensors = _make_tensors(ggml, context, shapes)
    types = (ctypes.c_int * len(shapes))()
    llama._Z25llama_quant_compute_typesP19quantize_state_impl11llama_ftypePP11ggml_tensorP9ggml_typem(
        state, parameters.ftype, tensors, types, ctypes.c_size_t(len(shapes))
    )
    llama._Z16llama_quant_freeP19quantize_state_impl(state)
    llama.llama_model_free(handle)
    ggml.ggml_free(context)
    return {name: numbers(each).name for name, each in zip(shapes, types, strict=True)}


@st.composite
def _decoders(draw: st.DrawFn) -> Shape:
    kv_heads = draw(st.integers(1, 8))
    return Shape(
        layers=draw(st.one_of(st.integers(1, 48), st.just(80))),
        hidden=draw(st.sampled_from([256, 512, 320, 48])),
        ffn=draw(st.sampled_from([256, 768, 352, 100])),
        heads=kv_heads * draw(st.integers(1, 8)),
        kv_heads=kv_heads,
        head_dim=draw(st.sampled_from([64, 32, 10])),
        vocabulary=64,
        tied=draw(st.booleans()),
        architecture=draw(st.sampled_from(["llama", "mistral3", "qwen3", "gemma3"])),
        norms=_NORMS,
        frequencies=draw(st.sampled_from([0, 32])),
    )


_OVERRIDES = (
    "attn_v=Q8_0",
    r"blk\.[0-3]\.ffn_down=F16",
    "ffn_(up|gate)=Q3_K",
    "output=q6_k",
    "token_embd=BF16",
    "attn=IQ4_XS",
)


@given(
    shape=_decoders(),
    file_type=st.sampled_from(_QUANTIZED),
    overrides=st.lists(st.sampled_from(_OVERRIDES), max_size=2, unique=True),
)
def test_types_are_those_of_the_library(shape: Shape, file_type: str, overrides: list[str]) -> None:
    decoder = Decoder(
        architecture=shape.architecture,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
    )
    shapes = list_tensors(shape)
    ordered = {name: shapes[name] for name in order_tensors(shapes)}
    parsed = [parse_override(each) for each in overrides]
    found = choose_types(file_type, shapes, decoder, parsed)
    assert list(found) == list(ordered)
    assert found == _ask_llama(file_type, ordered, decoder, parsed)


def test_blocks_are_those_of_the_package() -> None:
    gguf = import_gguf()
    for name, (elements, size) in BLOCKS.items():
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]] == (elements, size)
    assert count_row_bytes("Q4_K", 512) == 288


def test_every_file_type_is_known_to_the_package() -> None:
    assert len({find_file_type(name) for name in FILE_TYPES}) == len(FILE_TYPES)
    assert set(NEED_IMATRIX) <= set(FILE_TYPES)
