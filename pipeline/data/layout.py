"""What a chat template writes around the texts of conversations of one shape, learnt once.

To mark every character on its way through a template costs several times its rendering. So it is
done for one conversation of a shape (roles, and which texts there are): from its marked rendering
the layout is read off, the template's pieces and the messages' texts by turns. A later conversation
of the shape has this layout if transformers' own rendering of it is those pieces around its texts,
to the last character, no text stands there a second time, and one that the template leaves out
nowhere: so there is one place alone where the template can have written it. For any doubt there is
no layout, and the caller marks the characters.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.data.tracking import TEMPLATE, Run, Tracked

FIRST = 2  # the origin of the first message's texts; each message has two, for words and for calls

_TEXT_KEYS = frozenset({"role", "content", "thinking", "reasoning_content"})

# Shapes that are remembered; one of a hundred turns takes some kilobytes.
_MOST_LAYOUTS = 1000

_Messages = Sequence[Mapping[str, Any]]
_Place = tuple[int, int]  # which text of which message
_Piece = str | _Place  # a str is the template's own


class Layouts:
    """The layouts of one chat template, by the conversations' shape."""

    def __init__(self) -> None:
        # Each with the texts that the template leaves out.
        self._layouts: dict[tuple[Any, ...], tuple[list[_Piece], list[_Place]]] = {}

    def forget(self) -> None:
        """Forget every layout, so that what comes next depends on nothing that was rendered."""
        self._layouts.clear()

    def learn(self, messages: _Messages, marked: Tracked) -> None:
        """Remember the layout of a marked rendering, if its pieces are whole texts."""
        texts = _list_texts(messages)
        if texts is None or len(self._layouts) >= _MOST_LAYOUTS:
            return
        pieces: list[_Piece] = []
        position = 0
        for length, origin in marked.runs:
            piece = str.__str__(marked)[position : position + length]
            position += length
            if origin == TEMPLATE:
                pieces.append(piece)
                continue
            number, is_call = divmod(origin - FIRST, 2)
            if origin < FIRST or is_call or texts[number].count(piece) != 1:
                return
            pieces.append((number, texts[number].index(piece)))
        left_out = [
            (number, place)
            for number, said in enumerate(texts)
            for place, text in enumerate(said)
            if text and (number, place) not in pieces
        ]
        self._layouts[_find_shape(messages, texts)] = pieces, left_out

    def lay_out(self, messages: _Messages, rendered: str) -> Tracked | None:
        """Return the rendering with the origin of each of its characters; None for any doubt."""
        texts = _list_texts(messages)
        known = texts and self._layouts.get(_find_shape(messages, texts))
        if not known or not texts:
            return None
        pieces, left_out = known
        if any(texts[number][place] in rendered for number, place in left_out):
            return None
        runs: list[Run] = []
        position = 0
        for piece in pieces:
            if isinstance(piece, str):
                origin, text = TEMPLATE, piece
                stands_here = rendered.startswith(text, position)
            else:
                origin, text = FIRST + 2 * piece[0], texts[piece[0]][piece[1]]
                stands_here = rendered.find(text) == position == rendered.rfind(text)
            if not stands_here:
                return None
            runs.append((len(text), origin))
            position += len(text)
        return Tracked(rendered, runs) if position == len(rendered) else None


def _list_texts(messages: _Messages) -> list[list[str]] | None:
    """Return each message's reasoning and words; None where there is more to a message."""
    if not all(map(_TEXT_KEYS.issuperset, messages)):
        return None
    return [
        [message.get("reasoning_content", ""), *_list_words(message["content"])]
        for message in messages
    ]


def _list_words(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [chunk[chunk["type"]] for chunk in content]


def _find_shape(messages: _Messages, texts: Sequence[Sequence[str]]) -> tuple[Any, ...]:
    """Return what a template may write differently for, beside the very words."""
    return tuple(
        [
            (message["role"], type(message["content"]), *map(bool, said))
            for message, said in zip(messages, texts, strict=True)
        ]
    )
