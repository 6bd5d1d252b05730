"""Ids and mask -> the text that a person reads, the supervised part of it marked.

Tokens that hold only a part of a character's bytes are shown together, so nothing is shown as
U+FFFD that the row does not hold. What cannot be seen, or turns the text around it, is spelled out.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

from pipeline.data.encoding import read_control_ids


class Marks(NamedTuple):
    """What is written before and behind a supervised token, and a control token."""

    taught: tuple[str, str]
    control: tuple[str, str]


PLAIN = Marks(("⟦", "⟧"), ("", ""))
# Green; bold: text that is spelled like a control token is not.
COLOUR = Marks(("\x1b[32m", "\x1b[0m"), ("\x1b[1m", "\x1b[0m"))

_UNKNOWN = "\ufffd"

# A character has up to four bytes, and so at most as many tokens.
_MOST_TOKENS = 4

# Controls of a terminal, marks of direction, characters without a width.
_UNSEEN = ("Cc", "Cf")
_SHOWN = {"\n": "⏎", "\t": "\t"}


class Piece(NamedTuple):
    """One token's text, or that of a few tokens which make one character together."""

    text: str
    supervised: bool
    is_control: bool
    tokens: int


def split_pieces(
    tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], mask: Sequence[int]
) -> list[Piece]:
    """Return the row's text in pieces; no piece reaches over an end of the supervised part."""
    controls = read_control_ids(tokenizer)
    texts = _read_texts(tokenizer, [[each] for each in ids])
    pieces, at = [], 0
    while at < len(ids):
        text, count = texts[at], 1
        if _UNKNOWN in text:
            lengths = [
                longer
                for longer in range(2, min(_MOST_TOKENS, len(ids) - at) + 1)
                if len(set(mask[at : at + longer])) == 1
            ]
            joined = _read_texts(tokenizer, [ids[at : at + longer] for longer in lengths])
            whole = (pair for pair in zip(joined, lengths, strict=True) if _UNKNOWN not in pair[0])
            text, count = next(whole, (text, count))
        pieces.append(Piece(text, bool(mask[at]), ids[at] in controls, count))
        at += count
    return pieces


def _show(character: str) -> str:
    """Return the character as a terminal may have it."""
    if unicodedata.category(character) not in _UNSEEN:
        return character
    return _SHOWN.get(character) or f"\\u{{{ord(character):x}}}"


def _read_texts(
    tokenizer: PreTrainedTokenizerFast, groups: Sequence[Sequence[int]]
) -> Sequence[str]:
    """Return the text of each group of ids as it reads behind a letter: where a text begins, some
    tokenizers leave out a space."""
    backend = tokenizer.backend_tokenizer
    letter = backend.encode("a", add_special_tokens=False).ids
    before: str = backend.decode(letter, skip_special_tokens=False)
    texts = backend.decode_batch([[*letter, *each] for each in groups], skip_special_tokens=False)
    return [text.removeprefix(before) for text in texts]


def make_view(
    tokenizer: PreTrainedTokenizerFast,
    ids: Sequence[int],
    mask: Sequence[int],
    marks: Marks,
) -> str:
    """Return the row's tokens as text, the supervised and the control tokens marked."""
    parts = []
    for text, supervised, is_control, _ in split_pieces(tokenizer, ids, mask):
        shown = "".join(map(_show, text))
        for (before, after), is_so in zip(marks, (supervised, is_control), strict=True):
            shown = f"{before}{shown}{after}" if is_so else shown
        parts.append(shown)
        parts.append("\n" if "\n" in text else "")
    return "".join(parts)
