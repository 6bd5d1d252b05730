"""The names of a published checkpoint -> the names of a text-only one.

The table is literal, and each tensor of the input is accounted for exactly once: it becomes a
weight, it is the scale of one, or it is dropped on purpose. A name that no line matches is refused.
Two layouts are published: `language_model.model.*` (the makers' own files) and
`model.language_model.*` (written by transformers 5); a checkpoint without vision has `model.*`.
Which of the tensors a model must have is the family's business (`text_tensors.py`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pipeline.checkpoint.safetensors_header import TensorEntry
from pipeline.checkpoint.text_tensors import FAMILIES
from pipeline.errors import StageError

# What stands in a published name for the text model's `model.`
PREFIXES = ("language_model.model.", "model.language_model.")

_PARTS = {
    "text": r"language_model\.model|model\.language_model|model",
    "n": r"\d+",
    "norm": r"input_layernorm|(?:post_attention|pre_feedforward|post_feedforward)_layernorm"
    r"|self_attn\.[qk]_norm",
    "linear": r"self_attn\.[qkvo]_proj|mlp\.(?:gate|up|down)_proj",
    # transformers' FP8, compressed-tensors, Mistral's own
    "scale": r"weight_scale_inv|weight_scale|qscale_weight",
    "activation": r"activation_scale|input_scale|output_scale|qscale_act",
    "rest": r".+",
}

# pattern -> name of the weight; None = dropped on purpose.
NAMES: tuple[tuple[str, str | None], ...] = (
    ("{text}.embed_tokens.weight", "model.embed_tokens.weight"),
    ("{text}.layers.{n}.{norm}.weight", "model.layers.{n}.{norm}.weight"),
    ("{text}.layers.{n}.{linear}.weight", "model.layers.{n}.{linear}.weight"),
    ("{text}.norm.weight", "model.norm.weight"),
    ("language_model.lm_head.weight", "lm_head.weight"),
    ("lm_head.weight", "lm_head.weight"),
    # Neither activations nor the key-value cache are quantized after this; rotary frequencies
    # follow from the config.
    ("{text}.layers.{n}.{linear}.{activation}", None),
    ("language_model.lm_head.{activation}", None),
    ("lm_head.{activation}", None),
    ("{text}.layers.{n}.self_attn.k_scale", None),
    ("{text}.layers.{n}.self_attn.v_scale", None),
    ("{text}.layers.{n}.self_attn.rotary_emb.inv_freq", None),
    # The model that is distilled here reads text only.
    ("vision_tower.{rest}", None),
    ("model.vision_tower.{rest}", None),
    ("multi_modal_projector.{rest}", None),
    ("model.multi_modal_projector.{rest}", None),
)

# pattern of a scale -> name of the weight that consumes it.
SCALES: tuple[tuple[str, str], ...] = (
    ("{text}.layers.{n}.{linear}.{scale}", "model.layers.{n}.{linear}.weight"),
    ("language_model.lm_head.{scale}", "lm_head.weight"),
    ("lm_head.{scale}", "lm_head.weight"),
)

_WEIGHTS = tuple((pattern, target) for pattern, target in NAMES if target is not None)


@dataclass(frozen=True, kw_only=True)
class NamePlan:
    """What becomes of each tensor of a checkpoint; values are names in it."""

    weights: Mapping[str, str]
    scales: Mapping[str, str]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.weights) + len(self.scales) + len(self.dropped)
        return (
            f"{total} tensors: {len(self.weights)} weights, {len(self.scales)} scales used by "
            f"them, {len(self.dropped)} dropped on purpose"
        )


def plan_names(entries: Mapping[str, TensorEntry]) -> NamePlan:
    """Return what becomes of each tensor.

    Raises StageError for an unknown name, for two tensors of one meaning, for an FP8 weight without
    a scale and for a scale without an FP8 weight.
    """
    weights: dict[str, str] = {}
    scales: dict[str, str] = {}
    dropped: list[str] = []
    for name in entries:
        if (target := _find(name, SCALES)) is not None:
            _claim(scales, target, name)
        elif (found := _find_known(name)) is not None:
            _claim(weights, found, name)
        else:
            dropped.append(name)
    _check_scales(entries, weights, scales)
    plan = NamePlan(weights=weights, scales=scales, dropped=tuple(dropped))
    assert len(entries) == len(weights) + len(scales) + len(dropped)
    return plan


def _find_known(name: str) -> str | None:
    """Return the weight's new name, or None when the tensor is dropped on purpose."""
    for pattern, target in NAMES:
        if (match := _match(pattern, name)) is not None:
            return None if target is None else target.format(**match)
    raise StageError(
        "the checkpoint holds a tensor that is not known",
        on=name,
        why="the model is of a family, or quantized in a way, that is not supported",
        then="use a dense checkpoint, in BF16, F16, F32 or FP8, of one of these families: "
        + ", ".join(FAMILIES),
    )


def find_weight(name: str) -> str | None:
    """Return the name of a published weight in a text-only checkpoint, None when it has none."""
    return _find(name, _WEIGHTS)


def _find(name: str, table: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, target in table:
        if (match := _match(pattern, name)) is not None:
            return target.format(**match)
    return None


def _match(pattern: str, name: str) -> dict[str, str] | None:
    match = _compile(pattern).fullmatch(name)
    return None if match is None else match.groupdict()


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    return re.compile(
        "".join(
            f"(?P<{part}>{_PARTS[part]})" if odd else re.escape(part)
            for part, odd in zip(parts, [False, True] * len(parts), strict=False)
        )
    )


def _claim(taken: dict[str, str], target: str, name: str) -> None:
    if target in taken:
        raise StageError(
            "two tensors of the checkpoint have one meaning",
            on=f"{taken[target]} and {name}",
            why=f"both are {target}: the checkpoint mixes two layouts",
            then="copy or download the checkpoint again",
        )
    taken[target] = name


def _check_scales(
    entries: Mapping[str, TensorEntry], weights: Mapping[str, str], scales: Mapping[str, str]
) -> None:
    for target in sorted({*weights, *scales}):
        is_fp8 = target in weights and entries[weights[target]].dtype.startswith("F8")
        if is_fp8 != (target in scales):
            raise StageError(
                "a weight and its scale do not belong together",
                on=weights.get(target) or scales[target],
                why="it is FP8 and has no scale" if is_fp8 else "no FP8 weight uses it",
                then="copy or download the checkpoint again",
            )
