"""Does a model with its context fit here, and how much of it on the GPUs: said before it is loaded.

A model of memory, not a measurement. In it are the file's tensors, keys and values of every slot
(GgufFile.count_cache_bytes), the buffers of one batch of 512 tokens (in float32 the logits, and of
one layer about ten rows of the model's width and four of its feed-forward's), and the program.
Standard library only.
"""

from dataclasses import dataclass

from pipeline.errors import CapacityError, UsageError
from pipeline.serve.argv import CACHE_BITS
from pipeline.serve.gguf_file import GgufFile

_BATCH_TOKENS = 512
_PROGRAM_BYTES = 100_000_000
# What CUDA, its libraries and the buffers' padding take of each GPU.
_GPU_RESERVE_BYTES = 700_000_000
# The server sizes its caches in such steps.
_CONTEXT_STEP = 256
_MIB = 1 << 20
_CACHE_BLOCK = 32
_WHOLE_TYPES = ("f32", "f16", "bf16")


@dataclass(frozen=True, kw_only=True)
class Room:
    """The bytes that are free: of memory (None: not known), and of each GPU that may be used."""

    memory_bytes: int | None
    gpu_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Load:
    """What is to be held: a file, so many slots of so many tokens, keys and values in a type."""

    gguf: GgufFile
    context: int
    parallel: int
    cache_type: str

    @property
    def working_bytes(self) -> int:
        """The buffers of one batch, and the program."""
        read = self.gguf.read_number
        width = 10 * (read("embedding_length") or 0) + 4 * (read("feed_forward_length") or 0)
        per_token = 4 * ((read("vocab_size") or self.gguf.vocabulary) + width)
        return _BATCH_TOKENS * per_token + _PROGRAM_BYTES

    @property
    def cache_bytes(self) -> int:
        """Keys and values of all slots; 0 where the file does not say what they take."""
        return self.gguf.count_cache_bytes(self.context * self.parallel, self._bits) or 0

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.gguf.size_bytes + self.cache_bytes + self.working_bytes

    def find_context(self, free_bytes: int) -> int:
        """Return the longest context of one slot that would fit; 0 for none."""
        left = free_bytes - self.gguf.size_bytes - self.working_bytes
        step = self.gguf.count_cache_bytes(_CONTEXT_STEP * self.parallel, self._bits) or 0
        return max(0, left // step * _CONTEXT_STEP) if step else 0

    @property
    def _bits(self) -> float:
        return CACHE_BITS[self.cache_type]


def count_gpu_layers(load: Load, room: Room) -> int:
    """Return how many of the model's layers the free memory of the GPUs holds, each with its keys
    and values; one more than it has stands for the output, too.

    0 without a GPU, or when the file does not say how many layers it has.
    """
    layers = load.gguf.read_number("block_count") or 0
    free = sum(max(0, each - _GPU_RESERVE_BYTES) for each in room.gpu_bytes) - load.working_bytes
    if not layers or free <= 0:
        return 0
    each_bytes = (load.gguf.block_bytes + load.cache_bytes) / layers
    # The output is what is not in a block; the embeddings, counted here too, stay in memory.
    if free >= load.gguf.size_bytes + load.cache_bytes:
        return layers + 1
    return min(layers, int(free / each_bytes))


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
    gpu_bytes = sum(max(0, each - _GPU_RESERVE_BYTES) for each in room.gpu_bytes)
    free = room.memory_bytes + gpu_bytes
    if load.bytes <= free:
        return
    parts = f"{load.gguf.size_bytes:,} of tensors, {load.cache_bytes:,} of keys and values"
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
