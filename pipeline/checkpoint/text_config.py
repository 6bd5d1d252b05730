"""The config of a published checkpoint -> the config of its text model alone.

`text_config` is lifted to the top level, word for word: rope_parameters regenerated from class
defaults would change YaRN's attention factor from 1 to 1.387 without an error.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.checkpoint.text_tensors import FAMILIES
from pipeline.errors import StageError

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_config(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises StageError when the file is missing or holds something else.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if not isinstance(config, dict):
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
    """
    _check_quantization(config)
    text = dict(config.get("text_config") or config)
    for key in ("quantization_config", "torch_dtype", "_name_or_path", "auto_map"):
        text.pop(key, None)
    text["architectures"] = [_find_architecture(text)]
    text["dtype"] = "bfloat16"
    text["tie_word_embeddings"] = _is_tied(config, text, has_head=has_head)
    if "transformers_version" in config:
        text["transformers_version"] = config["transformers_version"]
    for key in _SPECIAL_IDS:
        known = (
            source[key] for source in (text, config, generation) if source.get(key) is not None
        )
        text[key] = next(known, None)
    return text


def _find_architecture(text: Mapping[str, Any]) -> str:
    model_type = text.get("model_type")
    if model_type not in FAMILIES:
        raise StageError(
            "the model's family is not supported",
            on=f"config.json, model_type {model_type}",
            why="its tensors or its GGUF differ from those of " + ", ".join(FAMILIES),
            then="use a base of one of these families",
        )
    return FAMILIES[model_type][0]


def _check_quantization(config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if quantization is None or quantization.get("quant_method") == "fp8":
        return
    raise StageError(
        "the checkpoint is quantized in a way that is not supported",
        on=f"config.json, quant_method {quantization.get('quant_method')}",
        why="only FP8 with one scale per tensor can be turned back into BF16",
        then="use the model's BF16 or FP8 checkpoint",
    )


def _is_tied(config: Mapping[str, Any], text: Mapping[str, Any], *, has_head: bool) -> bool:
    said = config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    if said is not None and said == has_head:
        raise StageError(
            "the checkpoint contradicts its config about the output head",
            on="config.json, tie_word_embeddings, and lm_head.weight",
            why=f"tie_word_embeddings is {said}, and lm_head.weight is "
            + ("there" if has_head else "missing"),
            then="set tie_word_embeddings to what the tensors say, or get the checkpoint again",
        )
    return not has_head
