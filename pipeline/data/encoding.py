"""Text whose characters have origins -> token ids, of which each knows its characters.

Control tokens are what the template writes and nothing else. A text that spells one is rare: then
the template's own are spelled by private characters instead, and a copy of the tokenizer that knows
control tokens by these names alone reads the whole. Nothing else in it differs, so that the ids are
those of any other text.
"""

import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, count
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from pipeline.data.tracking import TEMPLATE, UNKNOWN, Tracked
from pipeline.errors import StageError

# Unicode's last private plane: room for 65,534 control tokens.
_PRIVATE, _LAST_PRIVATE = 0x100000, 0x10FFFD


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The ids of a text, and which of them are control tokens, by their places.

    `span_of(n)`: where in the text token n begins and ends (characters). Asked for one by one: a
    row's mask needs a few of them. They never step back.
    """

    text: Tracked
    ids: list[int]
    controls: list[int]
    span_of: Callable[[int], tuple[int, int]]

    def find_token(self, edge: int) -> int:
        """Return the first token that begins at the character or behind it; at the end, none."""
        return _find_span(range(len(self.ids)), edge, self.span_of)

    def list_controls(self, edge: int) -> list[int]:
        """Return the control tokens that begin at the character or behind it."""
        return self.controls[_find_span(self.controls, edge, self.span_of) :]


def _find_span(tokens: Sequence[int], edge: int, span_of: Callable[[int], tuple[int, int]]) -> int:
    return bisect_left(tokens, (edge, -1), key=span_of)  # less than any span that begins there


def read_tokenizer(text: Path) -> PreTrainedTokenizerFast:
    """Return the checkpoint's tokenizer exactly as tokenizer.json describes it.

    The plain class on purpose: AutoTokenizer may rebuild the pre-tokenizer from a model's name or
    hand over to mistral-common, and the GGUF is made from the same tokenizer.json.
    """
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        text, local_files_only=True
    )
    return tokenizer


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], *, bare: bool) -> str:
    """Return the ids' text; `bare` leaves the control tokens out."""
    text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=bare)
    return text


def read_control_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Return the ids that no text may have: the special tokens. `<think>` of some is none."""
    decoder = tokenizer.added_tokens_decoder
    return frozenset(i for i, t in decoder.items() if t.special) | set(tokenizer.all_special_ids)


class Encoder:
    """Reads text as the tokenizer does; adds no token of its own."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, ends: frozenset[int]) -> None:
        """`ends` end a turn: no text may have one, be it a special token or not."""
        self.control_ids = read_control_ids(tokenizer) | ends
        self._backend: Tokenizer = tokenizer.backend_tokenizer
        # It would cut spaces off the spans; the tokens that it adds are not asked for anywhere.
        self._backend.post_processor = None
        self._spelled = {self._backend.id_to_token(each): each for each in self.control_ids}

    def encode(self, text: Tracked, *, on: str) -> Encoded:
        """Return the ids. Raises StageError when a text would still become a control token."""
        encoded = self.encode_clean(text, on=on)
        if encoded is not None:
            return encoded
        private, places = self._spell_privately(text, on=on)
        found = self._private.encode(private, add_special_tokens=False)
        spans = [(places[low], places[high]) for low, high in found.offsets]
        encoded = self._make_encoded(text, found.ids, spans.__getitem__)
        if not self._is_clean(encoded, on=on):
            raise StageError(
                "a text becomes a control token",
                on=on,
                why="the tokenizer makes one even of its letters",
                then="take the control token out of the row",
            )
        return encoded

    def encode_clean(self, text: Tracked, *, on: str) -> Encoded | None:
        """Return the ids of a text in which the template alone has spelled control tokens; None of
        another."""
        found = self._backend.encode(str.__str__(text), add_special_tokens=False)
        encoded = self._make_encoded(text, found.ids, found.token_to_chars)
        return encoded if self._is_clean(encoded, on=on) else None

    def _make_encoded(
        self, text: Tracked, ids: list[int], span_of: Callable[[int], tuple[int, int]]
    ) -> Encoded:
        controls = list(compress(count(), map(self.control_ids.__contains__, ids)))
        return Encoded(text=text, ids=ids, controls=controls, span_of=span_of)

    def _is_clean(self, encoded: Encoded, *, on: str) -> bool:
        """Whether every control token is written by the template, to its last character.

        Raises StageError where it may be written by the template or by a text.
        """
        pieces = find_pieces(encoded.text)
        at, is_clean = 0, True
        for low, high in map(encoded.span_of, encoded.controls):
            while pieces[at][1] <= low:
                at += 1
            origins = {origin for start, _, origin in pieces[at:] if start < high}
            if UNKNOWN in origins:
                raise StageError(
                    "it cannot be told whether a control token is the template's or a text's",
                    on=on,
                    why=f"the chat template rewrites texts around {encoded.text[low:high]!r}",
                    then="take the control token out of the row, or correct the chat template",
                )
            is_clean = is_clean and origins == {TEMPLATE}
        return is_clean

    def _spell_privately(self, text: Tracked, *, on: str) -> tuple[str, list[int]]:
        """Return the text with the template's control tokens as private characters, and where each
        of its characters, and its end, lies in the text itself."""
        plain = str.__str__(text)
        taken = next((c for c in plain if _PRIVATE <= ord(c) <= _LAST_PRIVATE), None)
        if taken is not None:
            raise StageError(
                "a text spells a control token and has a private character",
                on=on,
                why=f"U+{ord(taken):X} is what keeps the two apart",
                then="take one of them out of the row",
            )
        private, places, position = "", list[int](), 0
        for low, high, token_id in self._find_control_tokens(text):
            private += plain[position:low] + self._private_names[token_id]
            places += range(position, low + 1)
            position = high
        return private + plain[position:], [*places, *range(position, len(plain) + 1)]

    def _find_control_tokens(self, text: Tracked) -> Iterator[tuple[int, int, int]]:
        """Yield begin, end and id of the control tokens in what the template wrote."""
        for start, end, origin in find_pieces(text):
            if origin == TEMPLATE:
                piece = str.__str__(text)[start:end]
                found = self._backend.encode(piece, add_special_tokens=False)
                for token_id, (low, high) in zip(found.ids, found.offsets, strict=True):
                    if token_id in self.control_ids:
                        yield start + low, start + high, token_id

    @cached_property
    def _private_names(self) -> dict[int, str]:
        return {each: chr(_PRIVATE + n) for n, each in enumerate(sorted(self.control_ids))}

    @cached_property
    def _private(self) -> Tokenizer:
        """The tokenizer with its control tokens renamed, each at its old id."""
        document = json.loads(self._backend.to_str())
        names = {spelled: self._private_names[each] for spelled, each in self._spelled.items()}
        for token in document["added_tokens"]:
            token["content"] = names.get(token["content"], token["content"])
        model = document["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {names.get(name, name): each for name, each in model["vocab"].items()}
        else:  # Unigram: a list of names and scores
            model["vocab"] = [[names.get(name, name), *rest] for name, *rest in model["vocab"]]
        if model.get("unk_token") in names:
            model["unk_token"] = names[model["unk_token"]]
        private: Any = Tokenizer.from_str(json.dumps(document))
        for spelled, token_id in self._spelled.items():
            assert private.token_to_id(names[spelled]) == token_id, f"{spelled!r} has moved"
        return private


def find_pieces(text: Tracked) -> list[tuple[int, int, int]]:
    """Return start, end and origin of each run of the text."""
    pieces, position = [], 0
    for length, origin in text.runs:
        pieces.append((position, position + length, origin))
        position += length
    return pieces
