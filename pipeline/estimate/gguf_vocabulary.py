"""The tokenizer's files -> the bytes of a GGUF's vocabulary, to the byte.

The routes are those of the pinned llama.cpp's converter (conversion/base.py, gguf-py's vocab.py):
`tokenizer.model` of SentencePiece, `tokenizer.json` with byte fallback as if it were that, and
byte-level BPE. Standard library only: a SentencePiece model is a protocol buffer whose first field
repeats a token's text, score and kind.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pipeline.estimate.gguf_metadata import (
    FLAG_BYTES,
    count_numbers,
    count_string,
    count_strings,
)
from pipeline.estimate.gguf_special import PREFIX, list_special

_SPACE = "\u2581"  # SentencePiece's
# What stands before byte-level BPE in tokenizer.json -> llama.cpp's name for it. The converter goes
# by a hash of ids instead, so another vocabulary with one of these may have a name of its own.
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {_TEKKEN: "tekken", _WORDS % "{1,3}": "llama-bpe", _WORDS % "": "qwen2"}
_UNKNOWN_SPLIT = "default"


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The bytes of each value by key; `why` says what is modelled, and is "" when all is exact."""

    entries: Mapping[str, int]
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class _Files:
    directory: Path
    tokenizer: Mapping[str, Any]
    settings: Mapping[str, Any]


def has_tokenizer(directory: Path) -> bool:
    """Whether the files are there that a vocabulary is read from."""
    return any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))


def read_vocabulary(
    directory: Path, config: Mapping[str, Any], *, architecture: str, size: int
) -> Vocabulary:
    """Return what the converter makes of the tokenizer in a directory that has one.

    `config` is the text model's, with the ids of its special tokens; `size` is its vocab_size.
    """
    files = _Files(
        directory=directory,
        tokenizer=_read_json(directory / "tokenizer.json"),
        settings=_read_json(directory / "tokenizer_config.json"),
    )
    entries: dict[str, int] = {}
    why = ""
    if architecture in ("llama", "mistral3") and files.settings.get("add_prefix_space") is not None:
        entries[f"{PREFIX}add_space_prefix"] = FLAG_BYTES
    if (directory / "tokenizer.model").is_file():
        entries |= _list_scored(list(_list_pieces(files, size).values()))
        limit: int | None = size
        if architecture == "gemma3":
            entries[f"{PREFIX}add_space_prefix"] = FLAG_BYTES
    elif architecture in ("llama", "mistral3") and _has_byte_fallback(files.tokenizer):
        tokens = _read_tokens(files.tokenizer)
        entries |= _list_scored(list(tokens.values()))
        limit = len(tokens)
    else:
        found, why = _list_byte_level(files.tokenizer, size)
        entries |= found
        limit = None
    entries |= list_special(files.tokenizer, files.settings, config, limit)
    if architecture in ("llama", "mistral3") and size == 49152:
        entries[f"{PREFIX}add_bos_token"] = FLAG_BYTES
    template = _read_template(files)
    if template is None:
        why = why or "its chat template is not one text"
    else:
        entries["tokenizer.chat_template"] = count_string(template)
    return Vocabulary(entries=entries, why=why)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _list_scored(tokens: list[str]) -> dict[str, int]:
    """Return the entries of a vocabulary of SentencePiece's form."""
    return {
        f"{PREFIX}model": count_string("llama"),
        f"{PREFIX}pre": count_string("default"),
        f"{PREFIX}tokens": count_strings(tokens),
        f"{PREFIX}scores": count_numbers(len(tokens)),
        f"{PREFIX}token_type": count_numbers(len(tokens)),
    }


def _list_byte_level(tokenizer: Mapping[str, Any], size: int) -> tuple[dict[str, int], str]:
    """Return the entries of byte-level BPE, and what of them is modelled."""
    by_id = _read_tokens(tokenizer)
    tokens = [by_id.get(index, f"[PAD{index}]") for index in range(size)]
    merges = tokenizer.get("model", {}).get("merges")
    split = _find_split(tokenizer)
    entries = {
        f"{PREFIX}model": count_string("gpt2"),
        f"{PREFIX}pre": count_string(split or _UNKNOWN_SPLIT),
        f"{PREFIX}tokens": count_strings(tokens),
        f"{PREFIX}token_type": count_numbers(len(tokens)),
    }
    if merges:
        entries[f"{PREFIX}merges"] = _count_merges(merges)
    return entries, "" if split else "the name of the tokenizer's split, some letters, is not known"


def _read_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """Return the tokens of tokenizer.json by id, as the converter writes them."""
    vocabulary = tokenizer.get("model", {}).get("vocab", {})
    by_id = {index: token for token, index in vocabulary.items()}
    for added in tokenizer.get("added_tokens") or ():
        by_id[added["id"]] = _write_added(added["content"], special=bool(added.get("special")))
    return by_id


def _write_added(text: str, *, special: bool) -> str:
    """Return an added token's text: in one that is not a control token spaces become plain."""
    looks_special = (
        text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
        or (text.startswith("<|") and text.endswith("|>"))
        or (text.startswith("<\uff5c") and text.endswith("\uff5c>"))
        or (text.startswith("<unused") and text.endswith(">"))
    )
    return text if special or looks_special else text.replace(_SPACE, " ")


def _count_merges(merges: list[str] | list[list[str]]) -> int:
    """Return the bytes of the merges: two halves with a space between.

    A space inside a half is written as the letter that byte-level BPE has for it, of two bytes.
    """
    if isinstance(merges[0], str):
        return count_strings(map(str, merges))
    halves = "".join(chain.from_iterable(merges))
    return count_strings([halves]) + halves.count(" ") + (8 + 1) * len(merges) - 8


def _find_split(tokenizer: Mapping[str, Any]) -> str:
    """Return llama.cpp's name for the split, or ""."""
    before = tokenizer.get("pre_tokenizer") or {}
    for each in before.get("pretokenizers", [before]):
        pattern = each.get("pattern", {})
        found = _SPLITS.get(pattern.get("Regex", "")) if isinstance(pattern, dict) else None
        if found:
            return found
    return ""


def _has_byte_fallback(tokenizer: Mapping[str, Any]) -> bool:
    model, decoder = tokenizer.get("model", {}), tokenizer.get("decoder") or {}
    is_whole = model.get("type") == "BPE" and decoder.get("type") == "Sequence"
    return is_whole and bool(model.get("byte_fallback"))


def _list_pieces(files: _Files, size: int) -> dict[int, str]:
    """Return the tokens of a SentencePiece model with what the other files add, by id."""
    tokens = {index: f"[PAD{index}]" for index in range(size)}
    model = (files.directory / "tokenizer.model").read_bytes()
    found = {index: text for index, text in enumerate(_read_pieces(model)) if index < size}
    added = _read_json(files.directory / "added_tokens.json")
    found |= {index: text for text, index in added.items() if index < size}
    for key, token in (files.settings.get("added_tokens_decoder") or {}).items():
        if int(key) < size:
            text = token["content"]
            found[int(key)] = _write_added(text, special=bool(token.get("special")))
    return tokens | found


def _read_pieces(model: bytes) -> Iterator[str]:
    """Yield the text of each token of a SentencePiece model (sentencepiece_model.proto)."""
    for number, message in _read_fields(model):
        if number == 1:
            yield next((text for n, text in _read_fields(message) if n == 1), b"").decode("utf-8")


def _read_fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a protocol buffer's message (of numbers, b"")."""
    at = 0

    def read_number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag = read_number()
        number, wire = tag >> 3, tag & 7
        length = {1: 8, 5: 4}.get(wire, 0)
        if wire == 0:
            read_number()
        elif wire == 2:
            length = read_number()
        yield number, message[at : at + length] if wire == 2 else b""
        at += length


def _read_template(files: _Files) -> str | None:
    """Return the chat template: the tokenizer config's own goes first there, as in transformers."""
    path = files.directory / "chat_template.jinja"
    template = files.settings.get("chat_template")
    if template is None and path.is_file():
        # Line ends become one character, as when the converter reads it.
        return re.sub("\r\n?", "\n", path.read_bytes().decode("utf-8"))
    return template if isinstance(template, str) else None
