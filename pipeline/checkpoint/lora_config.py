"""adapter_config.json as PEFT writes it -> what a merge must know of it, or a refusal.

It says which modules have a pair of factors, and each pair's rank and scaling. The rules for names
are PEFT's own (0.21): a list names modules by their ends; a text is a regular expression.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.checkpoint.names import PREFIXES
from pipeline.checkpoint.text_config import read_config
from pipeline.errors import StageError

CONFIG = "adapter_config.json"

# What a config must say for W + s B A to be all of it.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # Other initialisations change the base weights themselves.
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}

# What is read here, what the tensors say too, or what mattered in training alone.
# A key that is neither here nor above, and is set, is a feature that is not merged.
_KNOWN = frozenset({
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "ensure_weight_tying",
    "exclude_modules", "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha",
    "lora_dropout", "megatron_core", "modules_to_save", "peft_version", "qalora_group_size", "r",
    "rank_pattern", "revision", "target_modules", "task_type", "use_rslora",
})  # fmt: skip

Names = str | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """`layers` are the numbers of the layers that are adapted; none means all."""

    rank: float
    alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, float]
    alpha_pattern: Mapping[str, float]
    saved: tuple[str, ...]
    targets: Names
    excluded: Names
    layers: tuple[int, ...]

    def find_rank(self, module: str) -> float:
        """Return the rank of a module, by its name in training."""
        return _find_in_pattern(self.rank_pattern, module, self.rank)

    def find_scaling(self, module: str) -> float:
        """Return what B A is multiplied by."""
        rank, alpha = (
            self.find_rank(module),
            _find_in_pattern(self.alpha_pattern, module, self.alpha),
        )
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank

    def targets_module(self, module: str) -> bool:
        """Whether a linear module of the text-only checkpoint was given a pair."""
        if is_named(module, self.saved) or is_named(module, self.excluded):
            return False
        if self.targets == "all-linear":
            return module != "lm_head"
        number = re.search(r"\.(\d+)\.", module)
        if self.layers and not isinstance(self.targets, str):
            return _has_number(number, self.layers) and is_named(module, self.targets)
        return is_named(module, self.targets)


def read_lora_config(directory: Path) -> LoraConfig:
    """Return the config of an adapter.

    Raises StageError for whatever would not be merged by W + s B A.
    """
    config = read_config(directory / CONFIG)
    for key, value in config.items():
        plain = value in _PLAIN[key] if key in _PLAIN else key in _KNOWN or not value
        if not plain:
            raise make_error(f"{key} = {value!r}", "only plain LoRA can be merged")
    return LoraConfig(
        rank=_read_number(config, "r"),
        alpha=_read_number(config, "lora_alpha"),
        use_rslora=bool(config.get("use_rslora")),
        rank_pattern=_read_pattern(config, "rank_pattern"),
        alpha_pattern=_read_pattern(config, "alpha_pattern"),
        saved=_read_list(config, "modules_to_save", str),
        targets=_read_names(config, "target_modules"),
        excluded=_read_names(config, "exclude_modules"),
        layers=_read_layers(config),
    )


def make_error(on: str, why: str) -> StageError:
    """Return the error of an adapter that cannot be merged into its checkpoint."""
    return StageError(
        "the adapter cannot be merged",
        on=on,
        why=why,
        then="build `adapter` again from this checkpoint, with plain LoRA",
    )


def is_named(module: str, names: Names) -> bool:
    """Whether one of several ends, or a regular expression, names the module.

    An expression may be written for the module's name in a vision-language model.
    """
    if not isinstance(names, str):
        return any(module == name or module.endswith(f".{name}") for name in names)
    variants = [module, *(module.replace("model.", prefix, 1) for prefix in PREFIXES)]
    return any(re.fullmatch(names, variant) for variant in variants)


def _has_number(match: re.Match[str] | None, numbers: Iterable[int]) -> bool:
    return match is not None and int(match[1]) in numbers


def _find_in_pattern(pattern: Mapping[str, float], module: str, default: float) -> float:
    """Return the value of the first key that is the end of the module's name."""
    for key, value in pattern.items():
        if re.fullmatch(rf"(?:.*\.)?(?:{key})", module):
            return value
    return default


def _read_number(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if isinstance(value, int | float) and 0 < value < math.inf:
        return value
    raise make_error(f"{CONFIG}, {key}", f"it is {value!r}, no positive number"[:200])


def _read_pattern(config: Mapping[str, Any], key: str) -> dict[str, float]:
    pattern = config.get(key) or {}
    if not isinstance(pattern, dict):
        raise make_error(f"{CONFIG}, {key}", "it is no map of numbers")
    for expression in pattern:
        _check_expression(expression, key)
    return {expression: _read_number(pattern, expression) for expression in pattern}


def _read_names(config: Mapping[str, Any], key: str) -> Names:
    value = config.get(key)
    if isinstance(value, str):
        _check_expression(value, key)
        return value
    return _read_list(config, key, str)


def _read_layers(config: Mapping[str, Any]) -> tuple[int, ...]:
    value = config.get("layers_to_transform")
    return (value,) if isinstance(value, int) else _read_list(config, "layers_to_transform", int)


def _read_list(config: Mapping[str, Any], key: str, kind: type) -> tuple[Any, ...]:
    value = config.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, kind) for each in value):
        raise make_error(f"{CONFIG}, {key}", f"it is no list of {kind.__name__}")
    return tuple(value)


def _check_expression(expression: str, key: str) -> None:
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        why = f"{expression[:100]!r} is no regular expression: {error}"
        raise make_error(f"{CONFIG}, {key}", why) from None
