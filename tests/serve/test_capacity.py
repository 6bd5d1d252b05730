"""What fits is said before it is loaded, with the number that would."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import CapacityError, UsageError
from pipeline.serve.argv import CACHE_TYPES
from pipeline.serve.capacity import (
    Load,
    Room,
    count_gpu_layers,
    count_prompt_cache_mib,
    require_cache_type,
    require_room,
)
from pipeline.serve.gguf_file import GgufFile
from pipeline.serve.room import choose_gpus

_GB = 10**9
# Devstral Small 2 in Q4_K_M: 40 layers, 8 KV heads of 128.
_SHAPE = {"block_count": 40, "embedding_length": 5120, "feed_forward_length": 32768}
_SHAPE |= {"attention.head_count": 32, "attention.head_count_kv": 8, "vocab_size": 131072}
_SHAPE |= {"attention.key_length": 128, "attention.value_length": 128}
_METADATA = {"general.architecture": "mistral3"} | {f"mistral3.{k}": v for k, v in _SHAPE.items()}
_FILE = GgufFile(
    path=Path("model.gguf"),
    metadata=_METADATA,
    size_bytes=14_334_446_752,
    tensor_bytes={
        "token_embd.weight": 377_487_360,
        "output.weight": 550_502_400,
        **{f"blk.{layer}": 334_950_907 for layer in range(40)},
    },
)
_LOAD = Load(gguf=_FILE, context=16384, parallel=1, cache_type="f16")


def test_keys_and_values_take_what_llama_cpp_takes() -> None:
    assert _LOAD.cache_bytes == 40 * 8 * 256 * 16384 * 2
    halved = replace(_LOAD, cache_type="q8_0")
    assert halved.cache_bytes == _LOAD.cache_bytes * 8.5 / 16
    # 2 layers x 2 heads x (40 + 256 / 8) x 256 cells x 2 bytes
    numbers = {"block_count": 2, "attention.head_count": 8, "attention.head_count_kv": 2}
    numbers |= {"embedding_length": 256, "attention.key_length": 40}
    metadata = {"general.architecture": "a"} | {f"a.{k}": v for k, v in numbers.items()}
    small = replace(_LOAD, gguf=replace(_FILE, metadata=metadata), context=200)
    assert small.cache_bytes == 2 * 2 * 72 * 256 * 2


def test_layers_that_see_a_window_keep_no_more() -> None:
    shape = _SHAPE | {"attention.sliding_window": 1024}
    metadata = {"general.architecture": "gemma3"} | {f"gemma3.{k}": v for k, v in shape.items()}
    windowed = replace(_LOAD, gguf=replace(_FILE, metadata=metadata))
    # 6 of 40 layers see everything, the others 1,024 tokens and a batch of 512.
    whole = _LOAD.cache_bytes
    assert windowed.cache_bytes == whole * 6 / 40 + whole * 34 / 40 * 1536 / 16384
    metadata = _METADATA | {"mistral3.attention.sliding_window": 1024}
    assert replace(_LOAD, gguf=replace(_FILE, metadata=metadata)).cache_bytes == whole


def test_a_file_that_does_not_say_its_numbers_is_as_large_as_it_is() -> None:
    unknown = replace(_LOAD, gguf=replace(_FILE, metadata={}))
    require_room(unknown, Room(memory_bytes=15 * _GB))
    with pytest.raises(CapacityError, match="do not fit"):
        require_room(unknown, Room(memory_bytes=14 * _GB))
    assert count_gpu_layers(unknown, Room(memory_bytes=None, gpu_bytes=(24 * _GB,))) == 0


@pytest.mark.parametrize("cache_type", CACHE_TYPES)
@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("gpus", [(), (4 * _GB,)])
def test_the_context_that_is_told_fits_and_no_longer_one(
    cache_type: str, parallel: int, gpus: tuple[int, ...]
) -> None:
    room = Room(memory_bytes=18 * _GB - sum(gpus), gpu_bytes=gpus)
    load = Load(gguf=_FILE, context=1 << 20, parallel=parallel, cache_type=cache_type)
    with pytest.raises(CapacityError) as caught:
        require_room(load, room)
    told = int(caught.value.then.split("context = ")[1].split()[0])
    require_room(replace(load, context=told), room)
    with pytest.raises(CapacityError):
        require_room(replace(load, context=told + 256), room)


def test_where_nothing_fits_no_context_is_told() -> None:
    with pytest.raises(CapacityError) as caught:
        require_room(_LOAD, Room(memory_bytes=8 * _GB))
    assert "not even an empty context fits" in caught.value.then
    with pytest.raises(CapacityError) as caught:
        require_room(replace(_LOAD, parallel=4), Room(memory_bytes=8 * _GB))
    assert "parallel = 1" in caught.value.then


def test_where_memory_is_not_known_nothing_is_refused() -> None:
    require_room(_LOAD, Room(memory_bytes=None))
    assert count_prompt_cache_mib(_LOAD, Room(memory_bytes=None), 100) == 100


def test_gpus_take_what_they_hold() -> None:
    layers = [
        count_gpu_layers(_LOAD, Room(memory_bytes=None, gpu_bytes=(free * _GB,)))
        for free in (0, 1, 6, 12, 17, 24)
    ]
    assert layers == sorted(layers)
    assert layers[0] == layers[1] == 0
    assert 0 < layers[2] < layers[3] < 40
    assert layers[-1] == 41
    two = Room(memory_bytes=None, gpu_bytes=(12 * _GB, 12 * _GB))
    assert count_gpu_layers(_LOAD, two) == 41


def test_what_is_kept_of_prompts_leaves_room_for_the_model() -> None:
    room = Room(memory_bytes=_LOAD.bytes + (100 << 20))
    assert count_prompt_cache_mib(_LOAD, room, 2048) == 100
    assert count_prompt_cache_mib(_LOAD, Room(memory_bytes=64 * _GB), 2048) == 2048
    assert count_prompt_cache_mib(_LOAD, Room(memory_bytes=_GB), 2048) == 0


def test_keys_that_are_no_blocks_stay_whole() -> None:
    odd = replace(_FILE, metadata=_METADATA | {"mistral3.attention.key_length": 72})
    require_cache_type(replace(_LOAD, gguf=odd))
    require_cache_type(replace(_LOAD, cache_type="q8_0"))
    with pytest.raises(UsageError, match="cannot be kept"):
        require_cache_type(replace(_LOAD, gguf=odd, cache_type="q8_0"))


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (None, (1, 2, 3)),
        ("", ()),
        ("2", (3,)),
        ("2, 0", (3, 1)),
        ("GPU-8a1b", (1,)),
        ("7", (1,)),
    ],
)
def test_only_the_gpus_that_the_caller_chose_count(chosen: str | None, left: object) -> None:
    assert choose_gpus([1, 2, 3], chosen) == left
