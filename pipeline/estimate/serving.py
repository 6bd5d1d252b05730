"""Shape + context -> bytes of device memory that llama.cpp's server takes.

Every layer is on the device. The embeddings stay in host memory (llama.cpp looks rows up there)
unless they are the output head, too. `plan` asks of a file that is not there yet, `serve` of one
that it has read. Standard library only.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.estimate.shape import Shape
from pipeline.gguf_types import BLOCKS, count_row_bytes

# Of what llama.cpp may keep keys and values in (--cache-type-k, --cache-type-v) these are told
# besides the chosen one.
CACHE_TYPES = ("F16", "Q8_0", "Q4_0")

CELLS = 256  # contexts are whole numbers of it
_BATCH = 512  # tokens that are computed at once (--ubatch-size)
# The driver's, kernels and cuBLAS; on a CPU what the program itself takes.
CUDA_BYTES, PROGRAM_BYTES = 500_000_000, 60_000_000


@dataclass(frozen=True, kw_only=True)
class ServeMemory:
    """`parts` in bytes; `cache_bytes` is the key-value cache by its type, of which that of
    `cache_type` counts."""

    parts: Mapping[str, int]
    cache_bytes: Mapping[str, int]
    cache_type: str

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())


def model_serving(
    shape: Shape,
    *,
    tensor_bytes: int,
    embedding_bytes: int,
    cache_type: str,
    context: int,
    parallel: int,
    on_gpu: bool,
) -> ServeMemory:
    """Return what a server takes that keeps `parallel` contexts of `context` tokens.

    `tensor_bytes` are all of the file's, `embedding_bytes` those of token_embd.weight among them;
    `cache_type` is that of keys and values.
    """
    cache = {
        each: count_cache_bytes(shape, each, context=context, parallel=parallel)
        for each in sorted({*CACHE_TYPES, cache_type}, key=list(BLOCKS).index)
        if shape.kv_heads * shape.head_dim % BLOCKS[each][0] == 0
    }
    # In a type whose blocks do not divide a head the server would refuse to start.
    cache_type = cache_type if cache_type in cache else "F16"
    looked_up = 0 if shape.tied or not on_gpu else embedding_bytes
    parts = {
        "weights": tensor_bytes - looked_up,
        "kv_cache": cache[cache_type],
        "compute": count_compute_bytes(shape),
        "context" if on_gpu else "process": CUDA_BYTES if on_gpu else PROGRAM_BYTES,
    }
    return ServeMemory(parts=parts, cache_bytes=cache, cache_type=cache_type)


def count_compute_bytes(shape: Shape) -> int:
    """Return the bytes of the buffers of a batch: the logits, or the widest that a layer computes,
    and its input and output, in float32."""
    return 4 * _BATCH * (max(shape.vocabulary, 3 * shape.ffn) + 2 * shape.hidden)


def count_cache_bytes(shape: Shape, cache_type: str, *, context: int, parallel: int) -> int:
    """Return the bytes of keys and values, to the byte.

    Layers that see a window alone keep the window and a batch.
    """
    cells = _pad(context)
    window = min(cells, _pad(shape.window + _BATCH)) if shape.window else cells
    local = 0
    if shape.window:
        local = sum(1 for n in range(shape.layers) if (n + 1) % shape.window_pattern)
    row_bytes = count_row_bytes(cache_type, shape.kv_heads * shape.head_dim)
    tokens = (shape.layers - local) * cells + local * window
    return 2 * row_bytes * tokens * parallel


def _pad(tokens: int) -> int:
    return -(-tokens // CELLS) * CELLS
