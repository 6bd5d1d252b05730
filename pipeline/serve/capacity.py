"""Does a model with its context fit here, and how much of it on the GPUs: said before it is loaded.

The model of memory is the plan's (pipeline/estimate/serving.py), of the file as it is. Standard
library only.
"""

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import CapacityError, UsageError
from pipeline.estimate.serving import (
    CELLS,
    CUDA_BYTES,
    PROGRAM_BYTES,
    count_cache_bytes,
    count_compute_bytes,
)
from pipeline.estimate.shape import Shape
from pipeline.serve.gguf_file import GgufFile

# Of each GPU left free, should the model be wrong: a server that does not start costs more than a
# layer that waits in memory.
_SPARE_BYTES = 300_000_000
_MIB = 1 << 20
_CACHE_BLOCK = 32
_WHOLE_TYPES = ("f32", "f16", "bf16")
_EMBEDDINGS, _OUTPUT, _LAYER = "token_embd.weight", "output.weight", "blk."
# Every so many-th layer sees everything, the others a window; load_swa_pattern of llama.cpp's
# src/models. Of a family that is not here every layer is counted as one that does.
_WINDOW_PATTERNS = {"cohere2": 4, "gemma2": 2, "gemma3": 6, "gpt-oss": 2}


@dataclass(frozen=True, kw_only=True)
class Room:
    """The bytes that are free: of memory (None: not known), and of each GPU that may be used."""

    memory_bytes: int | None
    gpu_bytes: tuple[int, ...] = ()

    @property
    def usable_gpu_bytes(self) -> int:
        """What CUDA, and something spare, leave of the GPUs."""
        return sum(max(0, each - CUDA_BYTES - _SPARE_BYTES) for each in self.gpu_bytes)


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is to be held: a file, so many slots of so many tokens, keys and values in a type."""

    gguf: GgufFile
    context: int
    parallel: int
    cache_type: str

    @cached_property
    def shape(self) -> Shape | None:
        """The model's numbers; None where the file does not say them."""
        return read_shape(self.gguf)

    @property
    def weight_bytes(self) -> int:
        """All tensors."""
        return sum(self.gguf.tensor_bytes.values())

    @property
    def working_bytes(self) -> int:
        """The buffers of one batch; 0 where the file does not say what they take."""
        return count_compute_bytes(self.shape) if self.shape else 0

    @property
    def cache_bytes(self) -> int:
        """Keys and values of all slots; 0 where the file does not say what they take."""
        return self.count_cache_bytes(self.context)

    @property
    def bytes(self) -> int:
        """All of it, and the program."""
        return self.weight_bytes + self.cache_bytes + self.working_bytes + PROGRAM_BYTES

    def count_cache_bytes(self, context: int) -> int:
        """Return the bytes of keys and values, had each slot so many tokens."""
        if self.shape is None:
            return 0
        return count_cache_bytes(
            self.shape, self.cache_type.upper(), context=context, parallel=self.parallel
        )

    def find_context(self, free_bytes: int) -> int:
        """Return the longest context of one slot, up to its own, that would fit; 0 for none."""
        left = free_bytes - (self.bytes - self.cache_bytes)
        contexts = range(CELLS, self.context + CELLS, CELLS)
        fitting = bisect_right(contexts, left, key=self.count_cache_bytes)
        return contexts[fitting - 1] if fitting and self.shape else 0


def read_shape(gguf: GgufFile) -> Shape | None:
    """Return the numbers that memory follows from; None where the file does not say them."""
    read = gguf.read_number
    layers, hidden, heads = (
        read(name) or 0 for name in ("block_count", "embedding_length", "attention.head_count")
    )
    if not layers or not hidden or not heads:
        return None
    # Keys and values of different widths take what two of their mean do.
    of_key = read("attention.key_length") or hidden // heads
    of_value = read("attention.value_length") or hidden // heads
    window_pattern = _WINDOW_PATTERNS.get(gguf.architecture, 0)
    return Shape(
        layers=layers,
        hidden=hidden,
        ffn=read("feed_forward_length") or 0,
        heads=heads,
        kv_heads=read("attention.head_count_kv") or heads,
        head_dim=-(-(of_key + of_value) // 2),
        vocabulary=read("vocab_size") or gguf.vocabulary,
        tied=_OUTPUT not in gguf.tensor_bytes,
        architecture=gguf.architecture,
        norms=(),
        frequencies=0,
        window=(read("attention.sliding_window") or 0) if window_pattern else 0,
        window_pattern=read("attention.sliding_window_pattern") or window_pattern,
    )


def count_gpu_layers(load: Load, room: Room) -> int:
    """Return how many of the model's layers the free memory of the GPUs holds, each with its keys
    and values; one more than it has stands for the output, too.

    0 without a GPU, or when the file does not say how many layers it has.
    """
    free = room.usable_gpu_bytes - load.working_bytes
    if load.shape is None or free <= 0:
        return 0
    # The embeddings stay in memory, unless they are the output, too.
    looked_up = 0 if load.shape.tied else load.gguf.tensor_bytes.get(_EMBEDDINGS, 0)
    if free >= load.weight_bytes - looked_up + load.cache_bytes:
        return load.shape.layers + 1
    in_layers = sum(
        size for name, size in load.gguf.tensor_bytes.items() if name.startswith(_LAYER)
    )
    each_bytes = (in_layers + load.cache_bytes) / load.shape.layers
    return min(load.shape.layers, int(free / each_bytes))


def require_cache_type(load: Load) -> None:
    """Raise UsageError when the model's keys cannot be kept in the type: in blocks of 32."""
    width = load.gguf.read_number("attention.key_length")
    if width is None:
        heads = load.gguf.read_number("attention.head_count") or 1
        width = (load.gguf.read_number("embedding_length") or 0) // heads
    if load.cache_type in _WHOLE_TYPES or width % _CACHE_BLOCK == 0:
        return
    raise UsageError(
        "this model's keys cannot be kept in that type",
        on=f"{load.gguf.path.name}, [serve] cache_type = {load.cache_type}",
        why=f"it has blocks of {_CACHE_BLOCK}, and a key has {width} numbers",
        then='set [serve] cache_type = "f16" in the recipe',
    )


def require_room(load: Load, room: Room) -> None:
    """Raise CapacityError, with the context that would fit, when the load does not."""
    if room.memory_bytes is None:
        return
    free = room.memory_bytes + room.usable_gpu_bytes
    if load.bytes <= free:
        return
    parts = f"{load.weight_bytes:,} of tensors, {load.cache_bytes:,} of keys and values"
    fitting = load.find_context(free)
    raise CapacityError(
        "the model and its context do not fit into memory",
        on=f"{load.gguf.path.name}, {load.parallel} x {load.context:,} tokens",
        why=f"{load.bytes:,} bytes are needed ({parts}), {free:,} are free",
        then=_advise(load, fitting),
    )


def _advise(load: Load, fitting: int) -> str:
    if fitting:
        return f"set [serve] context = {fitting} in the recipe (it fits now), or free memory"
    if load.parallel > 1:
        return "set [serve] parallel = 1, take a smaller [serve] type, or free memory"
    return "take a smaller [serve] type, or free memory: not even an empty context fits"


def count_prompt_cache_mib(load: Load, room: Room, most_mib: int) -> int:
    """Return what may be kept of earlier prompts, MiB: the most, or what memory leaves of it."""
    if room.memory_bytes is None:
        return most_mib
    return max(0, min(most_mib, (room.memory_bytes - load.bytes) // _MIB))
