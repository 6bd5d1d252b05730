"""Shape + file type + metadata -> bytes of the GGUF file, to the byte.

A file is its head, the metadata, a table of tensors, all padded to 32 bytes, and each tensor padded
to 32 bytes. Names, types and blocks of tensors are those of the file. Metadata is exact where the
tokenizer's files are at hand; else the vocabulary's bytes are those measured for one of its size.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from pipeline.estimate.base_config import DEMONSTRATION, BaseConfig
from pipeline.estimate.gguf_metadata import (
    HEAD_BYTES,
    count_string,
    list_imatrix_entries,
    list_model_entries,
    sum_entries,
)
from pipeline.estimate.gguf_vocabulary import Vocabulary, has_tokenizer, read_vocabulary
from pipeline.estimate.shape import Shape
from pipeline.gguf_types import CONVERTED, Decoder, Override, choose_types, count_row_bytes

_ALIGNMENT_BYTES = 32

# vocab_size -> bytes of all tokenizer keys without a chat template, measured on published files:
# Mistral's tekken (2024-09), its SentencePiece v3 and v1; Llama 3; Qwen 2 and 3.
_VOCABULARY_BYTES: Mapping[int, int] = {
    131072: 7_858_677,
    32768: 739_234,
    32000: 716_985,
    128256: 7_817_598,
    151936: 5_927_847,
}
# Of another one: SentencePiece has no merges.
_BYTES_PER_TOKEN = {"gemma3": 24}
_BYTES_PER_OTHER_TOKEN = 54
# The demonstration's tokenizer and template are always the same.
DEMO_VOCABULARY_BYTES = 11_878

# What the stage `checkpoint.imatrix` calls its text and its file.
_IMATRIX_ENTRIES = list_imatrix_entries("calibration.txt", "imatrix.gguf")

_PROJECTIONS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """The bytes of a file's keys and values; `why` says what is modelled, "" when nothing is."""

    size_bytes: int
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class GgufSize:
    """One file: tensors and metadata, and with the head, the table and padding the whole.

    `why` says what is modelled where the size is not exact.
    """

    size_bytes: int
    tensor_bytes: int
    metadata_bytes: int
    is_exact: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """What a recipe asks of a file."""

    file_type: str
    overrides: Sequence[Override] = ()
    has_imatrix: bool = False


def measure_metadata(
    base: BaseConfig, shape: Shape, *, name: str, planning: bool, chat_template: str = ""
) -> Metadata:
    """Return the bytes of the metadata of every file of that name, an importance matrix's apart.

    `chat_template` is the source of another one than the base's own.

    Only for a plan are the tokenizer's files read, which takes a moment.
    """
    text = base.text
    entries = list_model_entries(
        text,
        shape,
        name=name,
        parameters=sum(prod(size) for size in list_tensors(shape).values()),
        generation=base.generation,
    )
    found = _read_vocabulary(base, text, shape) if planning else None
    chosen = {"tokenizer.chat_template": count_string(chat_template)} if chat_template else {}
    if found is not None:
        entries = {**entries, **found.entries, **chosen}
        return Metadata(size_bytes=sum_entries(entries), why=found.why)
    size_bytes, why = _model_vocabulary(base, shape)
    if chosen and base.origin == DEMONSTRATION:
        why = "the demonstration's own chat template is counted, too"
    return Metadata(size_bytes=sum_entries({**entries, **chosen}) + size_bytes, why=why)


def _read_vocabulary(base: BaseConfig, text: Mapping[str, Any], shape: Shape) -> Vocabulary | None:
    """Return what the tokenizer's files say; None where they are not here or are not of a form that
    is known."""
    if base.directory is None or not has_tokenizer(base.directory):
        return None
    try:
        return read_vocabulary(
            base.directory, text, architecture=shape.architecture, size=shape.vocabulary
        )
    except (AttributeError, IndexError, KeyError, OSError, TypeError, ValueError):
        return None


def _model_vocabulary(base: BaseConfig, shape: Shape) -> tuple[int, str]:
    size = shape.vocabulary
    if base.origin == DEMONSTRATION:
        return DEMO_VOCABULARY_BYTES, ""
    if size in _VOCABULARY_BYTES:
        return _VOCABULARY_BYTES[size], (
            f"the tokenizer's files are not at hand: {size:,} entries are taken to be those of the"
            " published vocabulary of that size, and the chat template is left out"
        )
    each = _BYTES_PER_TOKEN.get(shape.architecture, _BYTES_PER_OTHER_TOKEN)
    return each * size, f"the tokenizer's files are not at hand: {each} bytes an entry are assumed"


def size_file(shape: Shape, form: FileForm, metadata: Metadata, *, is_listed: bool) -> GgufSize:
    """Return the size of the file; exact when its family `is_listed` and its metadata is exact."""
    table_bytes = sum(24 + len(name) + 8 * len(size) for name, size in list_tensors(shape).items())
    metadata_bytes = metadata.size_bytes
    if form.has_imatrix and form.file_type not in CONVERTED:
        metadata_bytes += sum_entries(_IMATRIX_ENTRIES)
    tensor_bytes = sum_tensor_bytes(
        shape, form.file_type, form.overrides, has_imatrix=form.has_imatrix
    )
    why = metadata.why if is_listed else "the family is not known: as large as its files say"
    return GgufSize(
        size_bytes=_pad(HEAD_BYTES + metadata_bytes + table_bytes) + tensor_bytes,
        tensor_bytes=tensor_bytes,
        metadata_bytes=metadata_bytes,
        is_exact=not why,
        why=why,
    )


def sum_tensor_bytes(
    shape: Shape,
    file_type: str,
    overrides: Sequence[Override] = (),
    *,
    has_imatrix: bool = False,
) -> int:
    """Return the bytes of all tensors, each padded to the alignment."""
    tensors = list_tensors(shape)
    decoder = Decoder(
        architecture=shape.architecture,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
    )
    types = choose_types(file_type, tensors, decoder, overrides, has_imatrix=has_imatrix)
    return sum(_pad(count_tensor_bytes(tensors[name], each)) for name, each in types.items())


def count_tensor_bytes(size: Sequence[int], tensor_type: str) -> int:
    """Return the bytes of a tensor of rows and columns, or elements."""
    return prod(size[:-1]) * count_row_bytes(tensor_type, size[-1])


def list_tensors(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the file by its name: rows and columns, or elements."""
    tensors: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (shape.vocabulary, shape.hidden),
        "output_norm.weight": (shape.hidden,),
    }
    if not shape.tied:
        tensors["output.weight"] = (shape.vocabulary, shape.hidden)
    if shape.frequencies:
        tensors["rope_freqs.weight"] = (shape.frequencies,)
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        for name, size in shape.list_projections().items():
            tensors[f"{prefix}{_PROJECTIONS[name]}.weight"] = size
        for name, width in shape.list_norms():
            tensors[f"{prefix}{name}.weight"] = (width,)
    return tensors


def _pad(size: int) -> int:
    return -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
