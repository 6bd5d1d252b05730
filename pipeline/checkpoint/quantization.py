"""How a published checkpoint's config says that its weights are quantized, as far as it is FP8.

Two forms are in use: `quant_method` "fp8" (transformers; Mistral and DeepSeek publish it) and
"compressed-tensors" of format "float-quantized" (llm-compressor; vLLM's). Which weights are
quantized, and by scales of which shape, the tensors say; here stands the size of a scale's block.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import StageError

Block = tuple[int, int]

# The keys that have held it, in the config or in its text_config.
KEYS = ("quantization_config", "compression_config")

# What a group of compressed-tensors must say of its weights.
_FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True}
_STRATEGIES = ("tensor", "channel", "block")


def read_block(config: Mapping[str, Any]) -> Block | None:
    """Return the rows and columns that share a scale; None where it is a tensor or a channel.

    Raises StageError when the config says another quantization than FP8.
    """
    for place in (config, config.get("text_config") or {}):
        for key in KEYS:
            if (found := place.get(key)) is not None:
                return _read_block(found)
    return None


def _read_block(quantization: Any) -> Block | None:
    match quantization:
        case {"quant_method": "fp8"}:
            return _parse_block(quantization.get("weight_block_size"))
        case {"quant_method": "compressed-tensors", "config_groups": {**groups}}:
            found = {_read_group(group, quantization.get("format")) for group in groups.values()}
            if len(found) == 1:
                return found.pop()
            raise _make_error(f"{len(found)} kinds of config_groups")
        case {"quant_method": method}:
            raise _make_error(f"quant_method {method}")
    raise _make_error("no quant_method")


def _read_group(group: Any, form: Any) -> Block | None:
    match group:
        case {"weights": {**weights}}:
            own_form = group.get("format") or form
            said = {key: weights.get(key) for key in _FLOAT8}
            strategy = weights.get("strategy")
            if own_form == "float-quantized" and said == _FLOAT8 and strategy in _STRATEGIES:
                return _parse_block(weights.get("block_structure"))
            raise _make_error(f"format {own_form}, weights {said}, strategy {strategy}")
    raise _make_error("a group of config_groups without weights")


def _parse_block(value: Any) -> Block | None:
    match value:
        case None:
            return None
        case [int(rows), int(columns)] if rows > 0 and columns > 0:
            return rows, columns
    raise _make_error(f"blocks of {str(value)[:50]}")


def _make_error(what: str) -> StageError:
    return StageError(
        "the checkpoint is quantized in a way that is not supported",
        on=f"config.json, {what}",
        why="only FP8 with scales per tensor, per channel or per block can be turned back into "
        "BF16",
        then="use the model's BF16 or FP8 checkpoint",
    )
