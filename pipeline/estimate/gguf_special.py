"""The tokenizer's files -> which special tokens a GGUF names.

As gguf-py's SpecialVocab finds them (vocab.py), which the pinned llama.cpp's converter uses: in
tokenizer.json's post-processor, then tokenizer_config.json, then config.json. Their ids are
numbers, so which keys there are is all that a size needs.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.estimate.gguf_metadata import FLAG_BYTES, NUMBER_BYTES

PREFIX = "tokenizer.ggml."

# config.json's and tokenizer_config.json's names of special tokens -> the GGUF's
_SPECIAL = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",  # spelt so there
    "pad": "padding",
    "mask": "mask",
    "eot": "eot",
}
_TURN_ENDS = ("eot_token", "eom_token")
_ADDED = ("bos", "eos", "sep")


def list_special(
    tokenizer: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    config: Mapping[str, Any],
    limit: int | None,
) -> dict[str, int]:
    """Return the bytes of each value by key: ids of special tokens, whether the beginning and the
    end are added to a text, and the normalizer.

    `tokenizer` is tokenizer.json, `config` the text model's. An id that is not below `limit` is
    left out.
    """
    # An end of turn is looked for only where the end of the text is another token.
    settings = {key: value for key, value in tokenizer_config.items() if key not in _TURN_ENDS}
    flags = _find_flags(tokenizer, settings) if tokenizer else set()
    ids = set()
    if tokenizer_config:
        flags |= {each for each in _ADDED if isinstance(settings.get(f"add_{each}_token"), bool)}
        ids = _find_named(tokenizer, settings, limit)
    for name in _SPECIAL:
        index = config.get(f"{name}_token_id")
        if (
            type(index) is int
            and f"{name}_token" not in _TURN_ENDS
            and (limit is None or index < limit)
        ):
            ids.add(name)
    entries = {f"{PREFIX}{_SPECIAL[name]}_token_id": NUMBER_BYTES for name in ids}
    entries |= {f"{PREFIX}add_{name}_token": FLAG_BYTES for name in flags}
    for name in _find_normalizers(tokenizer.get("normalizer") or {}):
        entries[f"{PREFIX}normalizer.{name}"] = FLAG_BYTES
    return entries


def _find_named(
    tokenizer: Mapping[str, Any], settings: Mapping[str, Any], limit: int | None
) -> set[str]:
    """Return which special tokens tokenizer_config.json names that tokenizer.json has added."""
    added = {each["content"]: each["id"] for each in reversed(tokenizer.get("added_tokens") or ())}
    found = set()
    for name in _SPECIAL:
        token = settings.get(f"{name}_token")
        text = token.get("content") if isinstance(token, dict) else token
        index = added.get(text) if isinstance(text, str) else None
        if index is not None and (limit is None or index < limit):
            found.add(name)
    return found


def _find_flags(tokenizer: Mapping[str, Any], settings: dict[str, Any]) -> set[str]:
    """Return which tokens the post-processor says whether to add; note in the settings which tokens
    it takes for the beginning and the end (SpecialVocab in gguf-py's vocab.py)."""
    for name, other in (("bos", "cls"), ("eos", "sep")):
        if settings and not settings.get(f"{name}_token") and settings.get(f"{other}_token"):
            settings[f"{name}_token"] = settings[f"{other}_token"]
    processor = tokenizer.get("post_processor") or {}
    flags: set[str] = set()
    for each in processor.get("processors", [processor]):
        match each.get("type"):
            case "ByteLevel":
                flags |= {"bos", "eos"}
            case "RobertaProcessing":
                flags |= {"bos", "eos", "sep"}
            case "TemplateProcessing":
                flags |= _find_template_flags(each, settings)
    return flags


def _find_template_flags(processor: Mapping[str, Any], settings: dict[str, Any]) -> set[str]:
    single, pair = processor.get("single", []), processor.get("pair", [])
    first = last = None
    if len(single) > 1:
        first, last = (_read_special(single[at]) for at in (0, -1))
    flags = {name for name, token in (("bos", first), ("eos", last)) if token}
    if first and settings and not settings.get("bos_token"):
        settings["bos_token"] = first
    if last and settings and last != settings.get("eos_token"):
        # The end of the text is another token; what was called so ends a turn.
        settings["eot_token"], settings["eos_token"] = settings.get("eos_token"), last
    start = 1 if pair and first and _read_special(pair[0]) == first else 0
    stop = -1 if pair and last and _read_special(pair[-1]) == last else len(pair)
    inner = pair[start:stop]
    ends = [each.get("Sequence", {}).get("id") for each in (inner[0], inner[-1])] if inner else []
    between = inner[1:-1]
    if ends != ["A", "B"] or not between:
        return flags
    separators = (settings.get("sep_token"), settings.get("eos_token"))
    adds = not last and _read_special(between[0]) in separators
    if adds and settings and not settings.get("sep_token"):
        settings["sep_token"] = settings.get("eos_token")
    return flags | {"sep"}


def _read_special(item: Mapping[str, Any]) -> str | None:
    token = item.get("SpecialToken", {}).get("id")
    return token if isinstance(token, str) else None


def _find_normalizers(normalizer: Mapping[str, Any]) -> set[str]:
    match normalizer.get("type"):
        case "Lowercase":
            return {"lowercase"}
        case "StripAccents":
            return {"strip_accents"}
        case "BertNormalizer":
            return {each for each in ("lowercase", "strip_accents") if each in normalizer}
        case "Sequence":
            parts = normalizer.get("normalizers", [])
            return set().union(*(_find_normalizers(each) for each in parts))
    return set()
