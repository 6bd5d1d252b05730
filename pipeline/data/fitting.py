"""A row that is too long -> left out, a shorter row, or several; an answer never loses its end.

Truncating takes from the prompt side, and from the row itself, not from its ids: first the oldest
exchanges, then the beginning of the first user's text. So what remains is a conversation that the
template renders, with every check that a whole one gets. Raw text loses nothing: it is cut into
rows of about one length, at the ends of characters, and only the last of them has an EOS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from pipeline.data.rendering import Rendered, Renderer
from pipeline.data.row import Message, Row

DROPPED = "longer than sequence_length"


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A row that fits; or one that does not, without ids and with the reason. `length` is the
    whole row's, tokens. What `continues` is raw text that goes on in the next row."""

    input_ids: list[int]
    completion_mask: list[int]
    length: int
    dropped: str | None = None
    truncated: bool = False
    continues: bool = False


def fit(
    renderer: Renderer, row: Row, *, limit: int, too_long: str, on: str
) -> list[tuple[Row, Fitted]]:
    """Return the row with its ids if there are at most `limit`, or what is done with it otherwise:
    of raw text its pieces, rows with ids of their own."""
    if row.text is not None:
        return _fit_text(renderer, row, row.text, limit, on=on)
    rendered = renderer.render(row, on=on)
    length = len(rendered.input_ids)
    if length <= limit:
        return [(row, _keep(rendered))]
    if too_long == "truncate":
        shorter = _truncate(lambda each: renderer.render(each, on=on), row, limit)
        if shorter is not None:
            return [(row, replace(_keep(shorter), truncated=True))]
    return [(row, _drop(length))]


def _drop(length: int) -> Fitted:
    return Fitted(input_ids=[], completion_mask=[], length=length, dropped=DROPPED)


def _fit_text(
    renderer: Renderer, row: Row, text: str, limit: int, *, on: str
) -> list[tuple[Row, Fitted]]:
    encoded = renderer.encode_text(text, on=on)
    whole = renderer.frame_text(encoded.ids, is_end=True)
    length, count = len(whole.input_ids), len(encoded.ids)
    if length <= limit:
        return [(row, _keep(whole))]
    # The EOS counts as the last token of the text.
    spans = [*map(encoded.span_of, range(count)), (len(text), len(text))]
    cuts = find_cuts(spans, limit - (length - count - 1))
    starts = [spans[each][0] for each in cuts[:-1]] + [len(text)]
    return [
        (
            replace(row, id=f"{row.id}#{number}", text=text[starts[number - 1] : starts[number]]),
            replace(
                _keep(renderer.frame_text(encoded.ids[low:high], is_end=high > count)),
                continues=high <= count,
            ),
        )
        for number, (low, high) in enumerate(pairwise(cuts), start=1)
    ] or [(row, _drop(length))]


def find_cuts(spans: Sequence[tuple[int, int]], most: int) -> list[int]:
    """Return where tokens are cut into few pieces of about one length, with at most so many tokens
    in each: the first tokens of the pieces, and the end.

    No cut lies inside a character, which may have several tokens, and none before the last span
    alone, which is the EOS. Nothing when that cannot be.
    """
    total, cuts = len(spans), [0]
    while (rest := total - cuts[-1]) > most:
        pieces = -(-rest // most)
        for length in (-(-rest // pieces), most):  # the second for a character that is so long
            cut = _step_back(spans, min(cuts[-1] + length, total - 2))
            if cut > cuts[-1]:
                break
        else:
            return []
        cuts.append(cut)
    return [*cuts, total]


def _step_back(spans: Sequence[tuple[int, int]], index: int) -> int:
    """Return the token at or before the index with which a character begins."""
    while index and spans[index][0] < spans[index - 1][1]:
        index -= 1
    return index


def _keep(rendered: Rendered) -> Fitted:
    return Fitted(
        input_ids=rendered.input_ids,
        completion_mask=rendered.completion_mask,
        length=len(rendered.input_ids),
    )


def _truncate(render: Callable[[Row], Rendered], row: Row, limit: int) -> Rendered | None:
    while (shorter := drop_oldest_exchange(row)) is not None:
        row = shorter
        if len((rendered := render(row)).input_ids) <= limit:
            return rendered
    return _cut_first_user(render, row, limit)


def drop_oldest_exchange(row: Row) -> Row | None:
    """Return the row without its first user's turn and what answers it; None for the last one."""
    users = [number for number, turn in enumerate(row.messages) if turn.role == "user"]
    if len(users) < 2:
        return None
    return replace(row, messages=row.messages[: users[0]] + row.messages[users[1] :])


def _cut_first_user(render: Callable[[Row], Rendered], row: Row, limit: int) -> Rendered | None:
    """Return the rendering with the most characters of the first user's text that fit."""
    number = next((n for n, turn in enumerate(row.messages) if turn.role == "user"), None)
    if number is None:
        return None
    turn, best = row.messages[number], None
    low, high = 1, len(turn.content) - 1  # characters kept; at least one, or there is no prompt
    while low <= high:
        kept = (low + high) // 2
        rendered = render(_keep_end(row, number, turn, kept))
        if len(rendered.input_ids) <= limit:
            best, low = rendered, kept + 1
        else:
            high = kept - 1
    return best


def _keep_end(row: Row, number: int, turn: Message, kept: int) -> Row:
    shorter = replace(turn, content=turn.content[-kept:])
    return replace(row, messages=(*row.messages[:number], shorter, *row.messages[number + 1 :]))
