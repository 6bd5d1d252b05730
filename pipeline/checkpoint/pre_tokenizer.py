"""Which of llama.cpp's pre-tokenizers splits text as this checkpoint's tokenizer does?

llama.cpp's converter knows tokenizers by the hash of the ids that a test text gets. That covers the
vocabulary too, so a new vocabulary with a known split is refused. Here a known split is enough: the
tokenizer's own regular expression, literally. That the ids agree is checked on the finished GGUF.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from pipeline.checkpoint.llama_source import import_conversion
from pipeline.errors import StageError

# Mistral's tekken: src/llama-vocab.cpp (LLAMA_VOCAB_PRE_TYPE_TEKKEN), "original regex".
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"
    r"|\s*[\r\n]+"
    r"|\s+(?!\S)"
    r"|\s+"
)

# regular expression of a split before byte-level BPE -> llama.cpp's name for it
SPLITS = {_TEKKEN: "tekken"}


def find_split(checkpoint: Path) -> str | None:
    """Return llama.cpp's name for the split of the checkpoint's tokenizer.json, if it is known.

    The split must be followed by byte-level encoding that neither adds a space nor splits again.
    """
    tokenizer = _read_tokenizer(checkpoint)
    match tokenizer.get("pre_tokenizer"):
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return SPLITS.get(pattern)
    return None


def check_pre_tokenizer(checkpoint: Path) -> None:
    """Raise StageError unless the GGUF converter will know the checkpoint's tokenizer.

    Asked before training, since the converter itself asks after it.
    """
    if _is_sentencepiece(checkpoint) or find_split(checkpoint) is not None:
        return
    model = import_conversion().TextModel
    try:
        # The converter's method reads nothing of the model that it belongs to.
        model.get_vocab_base_pre(None, AutoTokenizer.from_pretrained(checkpoint))
    except NotImplementedError:
        raise _make_error() from None


@contextmanager
def known_splits(checkpoint: Path) -> Iterator[None]:
    """Let llama.cpp's converter, where it does not know a hash, use the split's name instead."""
    model = import_conversion().TextModel
    upstream = model.get_vocab_base_pre

    def find_name(self: Any, tokenizer: Any) -> str:
        try:
            return str(upstream(self, tokenizer))
        except NotImplementedError:
            name = find_split(checkpoint)
        if name is None:
            raise _make_error()
        return name

    model.get_vocab_base_pre = find_name
    try:
        yield
    finally:
        model.get_vocab_base_pre = upstream


def _is_sentencepiece(checkpoint: Path) -> bool:
    """Whether the converter takes its route for SentencePiece, which has no pre-tokenizer."""
    if (checkpoint / "tokenizer.model").is_file():
        return True
    return bool(_read_tokenizer(checkpoint).get("model", {}).get("byte_fallback"))


def _read_tokenizer(checkpoint: Path) -> dict[str, Any]:
    path = checkpoint / "tokenizer.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        raise StageError(
            "the checkpoint's tokenizer is missing or unreadable",
            on=path.name,
            why="it is not there, or it is no JSON object",
            then="copy or download tokenizer.json again",
        ) from None


def _make_error() -> StageError:
    return StageError(
        "llama.cpp does not know this tokenizer's way to split text",
        on="tokenizer.json, pre_tokenizer",
        why="neither llama.cpp's converter knows its hash nor is its split one of "
        + ", ".join(SPLITS.values()),
        then="use a base whose tokenizer the pinned llama.cpp supports",
    )
