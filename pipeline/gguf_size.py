"""Shape + quantization type -> bytes of the GGUF file.

Tensor data is exact: the types follow llama-quantize's rules for dense models without an
importance matrix, the blocks ggml's layouts. Metadata is modelled by the vocabulary's size.
"""

from pipeline.decoder_shape import Shape

# Bytes of a row of n elements; llama.cpp's block layouts (ggml-common.h).
_BLOCK_BYTES = {
    "F32": (1, 4),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q5_0": (32, 22),
    "Q4_K": (256, 144),
    "Q6_K": (256, 210),
}
_ALIGNMENT_BYTES = 32
# Token text, type and merges in the metadata, per vocabulary entry; measured on Mistral's 131,072.
_METADATA_BYTES_PER_TOKEN = 54


def sum_file_bytes(shape: Shape, file_type: str) -> int:
    """Return the file's size: tensor data to the byte, tensor table, modelled metadata."""
    table = sum(
        24 + len(name) + (8 if rows == 1 else 16) for name, _, rows, _ in _list_tensors(shape)
    )
    return sum_tensor_bytes(shape, file_type) + table + _METADATA_BYTES_PER_TOKEN * shape.vocabulary


def sum_tensor_bytes(shape: Shape, file_type: str) -> int:
    """Return the bytes of all tensors, each padded to the alignment."""
    total = 0
    for name, layer, rows, columns in _list_tensors(shape):
        block, block_bytes = _BLOCK_BYTES[_choose_type(name, layer, shape, file_type, columns)]
        data = rows * (columns // block) * block_bytes
        total += -(-data // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return total


def _list_tensors(shape: Shape) -> list[tuple[str, int, int, int]]:
    """Return (GGUF name, layer or -1, rows, columns) of every tensor."""
    names = {
        "q_proj": "attn_q",
        "k_proj": "attn_k",
        "v_proj": "attn_v",
        "o_proj": "attn_output",
        "gate_proj": "ffn_gate",
        "up_proj": "ffn_up",
        "down_proj": "ffn_down",
    }
    tensors = [("token_embd.weight", -1, shape.vocabulary, shape.hidden)]
    if not shape.tied:
        tensors.append(("output.weight", -1, shape.vocabulary, shape.hidden))
    tensors.append(("output_norm.weight", -1, 1, shape.hidden))
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        for name, (rows, columns) in shape.list_projections().items():
            tensors.append((f"{prefix}{names[name]}.weight", layer, rows, columns))
        for name in ("attn_norm", "ffn_norm"):
            tensors.append((f"{prefix}{name}.weight", layer, 1, shape.hidden))
    return tensors


def _choose_type(name: str, layer: int, shape: Shape, file_type: str, columns: int) -> str:
    """Return the tensor's type: the rules of llama-quantize without an importance matrix."""
    if name.endswith("_norm.weight"):
        return "F32"
    if file_type != "Q4_K_M":
        return file_type
    output = "token_embd.weight" if shape.tied else "output.weight"
    eighth = shape.layers // 8
    more = layer < eighth or layer >= 7 * shape.layers // 8 or (layer - eighth) % 3 == 2
    sensitive = "attn_v" in name or "ffn_down" in name
    chosen = "Q6_K" if name == output or (sensitive and more) else "Q4_K"
    if columns % 256:
        return {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}[chosen]
    return chosen
