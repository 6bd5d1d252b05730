"""Shape + file type -> bytes of the GGUF file.

Tensor data and the table of tensors are exact: names, types and blocks are those of the file.
Metadata, which holds the vocabulary, is modelled by the vocabulary's size.
"""

from collections.abc import Sequence

from pipeline.decoder_shape import Shape
from pipeline.gguf_types import Decoder, Override, choose_types, count_row_bytes

_ALIGNMENT_BYTES = 32
# Token text, type and merges in the metadata, per vocabulary entry; measured on Mistral's 131,072.
_METADATA_BYTES_PER_TOKEN = 54

_PROJECTIONS = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def sum_file_bytes(
    shape: Shape,
    file_type: str,
    overrides: Sequence[Override] = (),
    *,
    has_imatrix: bool = False,
) -> int:
    """Return the file's size: tensor data to the byte, tensor table, modelled metadata."""
    table = sum(24 + len(name) + 8 * len(size) for name, size in list_tensors(shape).items())
    tensors = sum_tensor_bytes(shape, file_type, overrides, has_imatrix=has_imatrix)
    return tensors + table + _METADATA_BYTES_PER_TOKEN * shape.vocabulary


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
    total = 0
    types = choose_types(file_type, tensors, decoder, overrides, has_imatrix=has_imatrix)
    for name, tensor_type in types.items():
        rows = tensors[name][0] if len(tensors[name]) > 1 else 1
        data = rows * count_row_bytes(tensor_type, tensors[name][-1])
        total += -(-data // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return total


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
