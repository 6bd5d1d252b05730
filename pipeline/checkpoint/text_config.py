"""The config of a published checkpoint -> the config of its text model alone.

`text_config` is lifted to the top level, word for word: rope_parameters regenerated from class
defaults would change YaRN's attention factor from 1 to 1.387 without an error.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoint.other_family import check_other, is_listed
from pipeline.checkpoint.quantization import KEYS
from pipeline.checkpoint.text_tensors import DEFAULTS, FAMILIES
from pipeline.errors import StageError

CONFIG = "config.json"

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_config(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises StageError when the file is missing or holds something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict) or not isinstance(config.get("text_config") or {}, dict):
        raise StageError(
            "a config of the checkpoint is missing or unreadable",
            on=path.name,
            why="it is not there, or it is no JSON object",
            then=f"copy or download {path.name} again",
        )
    return config


def make_text_config(
    config: Mapping[str, Any], generation: Mapping[str, Any], *, has_head: bool
) -> dict[str, Any]:
    """Return the text model's config, in BF16 and without quantization.

    `has_head` says whether the checkpoint holds an lm_head: where the config leaves it open whether
    the embeddings are tied (the class default has changed between versions), the tensors decide.
    Of a family that is not in the table the config is kept as it is but for the weights' format.
    """
    if not is_listed(config):
        check_other(config)
    text = dict(config.get("text_config") or config)
    for key in (*KEYS, "torch_dtype", "_name_or_path", "auto_map"):
        text.pop(key, None)
    if is_listed(config):
        text["architectures"] = [FAMILIES[text["model_type"]][0]]
        text = {**DEFAULTS.get(text["model_type"], {}), **text}
        text["tie_word_embeddings"] = _is_tied(config, has_head=has_head)
    text["dtype"] = "bfloat16"
    if "transformers_version" in config:
        text["transformers_version"] = config["transformers_version"]
    for key in _SPECIAL_IDS:
        known = (
            source[key] for source in (text, config, generation) if source.get(key) is not None
        )
        text[key] = next(known, None)
    return text


def says_tied(config: Mapping[str, Any]) -> Any:
    """Return what a published config says of tied embeddings; None when it leaves that open."""
    text = config.get("text_config") or {}
    return config.get("tie_word_embeddings", text.get("tie_word_embeddings"))


def _is_tied(config: Mapping[str, Any], *, has_head: bool) -> bool:
    said = says_tied(config)
    if said is not None and said == has_head:
        raise StageError(
            "the checkpoint contradicts its config about the output head",
            on="config.json, tie_word_embeddings, and lm_head.weight",
            why=f"tie_word_embeddings is {said}, and lm_head.weight is "
            + ("there" if has_head else "missing"),
            then="set tie_word_embeddings to what the tensors say, or get the checkpoint again",
        )
    return not has_head
