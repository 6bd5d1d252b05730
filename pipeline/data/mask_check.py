"""What must hold for the mask of every row, checked on the ids and masks that training reads.

Knows nothing of how they were made. On every row, in whole columns: something is supervised; every
supervised stretch ends with a token that ends a turn, but where raw text goes on in the next row;
no token that the chat template writes only before an answer is supervised. On a single row beside
the canonical row that it came from: the supervised text of a turn is the assistant's own and
nothing else. A row that fails is an error that shows it.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, compress, count, takewhile
from typing import Any

import numpy as np
from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from pipeline.data.encoding import read_control_ids
from pipeline.data.rendering import make_assistant_text
from pipeline.data.row import Message, Row
from pipeline.data.statistics import Batch
from pipeline.data.view import PLAIN, make_view
from pipeline.errors import StageError

# Of a row, in an error message.
_SHOWN_TOKENS = 400

# A conversation to try the template on, of characters that none writes by itself.
_QUESTION, _THINKING, _ANSWER = "\u2602", "\u2603", "\u2604"
_USER = {"role": "user", "content": _QUESTION}
_PLAIN = {"role": "assistant", "content": _ANSWER}
_THINKERS: tuple[dict[str, Any], ...] = (
    {"role": "assistant", "content": make_assistant_text(_THINKING, _ANSWER)},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": _THINKING},
            {"type": "text", "text": _ANSWER},
        ],
    },
    _PLAIN | {"thinking": _THINKING, "reasoning_content": _THINKING},
)
_CALLER: dict[str, Any] = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call00001", "type": "function", "function": {"name": "f", "arguments": {}}}
    ],
}
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)


@dataclass(frozen=True, kw_only=True)
class Borders:
    """What the chat template writes around answers.

    Control tokens: `ends` of a turn, `prompts` that stand in no answer. `forms`: the texts that it
    writes before an answer and behind it; `thought_forms`: before, between and behind thinking and
    answer. Without a form, anything blank may stand there.
    """

    ends: frozenset[int]
    prompts: frozenset[int]
    forms: frozenset[tuple[str, ...]] = frozenset()
    thought_forms: frozenset[tuple[str, ...]] = frozenset()


def read_borders(
    tokenizer: PreTrainedTokenizerFast,
    *,
    template: str | None = None,
    ends: frozenset[int] = frozenset(),
) -> Borders:
    """Return the borders, read off the renderings of a few short conversations.

    `template` is the checkpoint's own unless given; `ends` are known to end a turn besides.
    """
    prober = _Prober(tokenizer, template)
    ends |= {tokenizer.eos_token_id, *prober.find_end()}
    forms = frozenset(prober.find_forms(_PLAIN, (_ANSWER,), ends))
    thought = [prober.find_forms(each, (_THINKING, _ANSWER), ends) for each in _THINKERS]
    thought_forms = frozenset(chain.from_iterable(thought))
    # A default system prompt may speak of the marks of thinking and calls, which answers have.
    answers = prober.find_answers((_PLAIN, _CALLER, *_THINKERS))
    prompts = prober.find_prompts() - answers
    named = {tokenizer.bos_token_id, tokenizer.pad_token_id}
    return Borders(
        ends=ends - {None},
        prompts=frozenset(prompts | named) - ends - {None},
        forms=forms,
        thought_forms=thought_forms,
    )


class _Prober:
    """Renders short conversations; a template that refuses one gives no text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, template: str | None) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._controls = read_control_ids(tokenizer)

    def find_prompts(self) -> set[int]:
        """Return the control tokens that stand before the first answer."""
        return set(self._encode(self._render([_USER], asks=True))) & self._controls

    def find_answers(self, answers: Iterable[dict[str, Any]]) -> set[int]:
        """Return the control tokens of any of the answers, behind the generation prompt."""
        prompt = self._render([_USER], asks=True)
        wholes = [self._render([_USER, answer]) for answer in answers]
        turns = [whole[len(prompt) :] for whole in wholes if prompt and whole.startswith(prompt)]
        return {each for turn in turns for each in self._encode(turn)} & self._controls

    def find_end(self) -> list[int]:
        """Return the first control token behind an answer; none where the template writes none."""
        behind = self._render([_USER, _PLAIN]).rpartition(_ANSWER)[2]
        return [each for each in self._encode(behind) if each in self._controls][:1]

    def find_forms(
        self, answer: dict[str, Any], said: tuple[str, ...], ends: frozenset[int | None]
    ) -> Iterator[tuple[str, ...]]:
        """Yield what is written around what is said, in the last turn and in an earlier one."""
        for more in ([], [_USER, _PLAIN]):
            prompt = self._render([_USER], asks=True)
            whole = self._render([_USER, answer, *more])
            if not prompt or not whole.startswith(prompt):
                continue
            turn = list(
                takewhile(lambda each: each not in ends, self._encode(whole[len(prompt) :]))
            )
            text = self._tokenizer.backend_tokenizer.decode(turn, skip_special_tokens=True)
            parts = tuple(re.split("|".join(said), text))
            if len(parts) == len(said) + 1:
                yield parts

    def _render(self, messages: list[dict[str, Any]], *, asks: bool = False) -> str:
        with suppress(*_TEMPLATE_ERRORS):
            text: str = self._tokenizer.apply_chat_template(
                messages,
                chat_template=self._template,
                tokenize=False,
                add_generation_prompt=asks,
            )
            return text
        return ""

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.backend_tokenizer.encode(
            text, add_special_tokens=False
        ).ids
        return ids


def check_batch(batch: Batch, borders: Borders, tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise StageError with the first row whose mask cannot be right."""
    _refuse(
        batch,
        np.flatnonzero(batch.supervised == 0),
        tokenizer,
        what="a row has no supervised token",
        why="nothing in it would be learnt: it has no answer, or the answer was cut off",
    )
    covered = (batch.mask == 1) & np.isin(batch.ids, list(borders.prompts))
    _refuse(
        batch,
        _find_rows(batch, covered),
        tokenizer,
        what="the mask covers a token of the prompt",
        why="the model would learn to write what the chat template writes before an answer",
    )
    last = (batch.mask == 1) & (np.append(batch.mask[1:], 0) == 0)
    # What goes on in the next row has no end yet.
    last[batch.stops - 1] = (batch.mask[batch.stops - 1] == 1) & ~batch.continues
    _refuse(
        batch,
        _find_rows(batch, last & ~np.isin(batch.ids, list(borders.ends))),
        tokenizer,
        what="the EOS of an answer is not supervised",
        why="a supervised stretch ends without the token that ends a turn: the model trained on"
        " it would never stop",
    )


def _find_rows(batch: Batch, tokens: np.ndarray) -> np.ndarray:
    """Return the rows that hold one of the marked tokens."""
    return np.searchsorted(batch.stops, np.flatnonzero(tokens), side="right")


def _refuse(
    batch: Batch, rows: np.ndarray, tokenizer: PreTrainedTokenizerFast, *, what: str, why: str
) -> None:
    if not len(rows):
        return
    row = int(rows[0])
    part = slice(int(batch.starts[row]), int(batch.stops[row]))
    ids, mask = batch.ids[part].tolist(), batch.mask[part].tolist()
    raise make_error(tokenizer, ids, mask, on=f"row {batch.row_ids[row]}", what=what, why=why)


def make_error(
    tokenizer: PreTrainedTokenizerFast,
    ids: Sequence[int],
    mask: Sequence[int],
    *,
    on: str,
    what: str,
    why: str,
) -> StageError:
    """Return the error with the row shown, its supervised tokens in brackets."""
    view = make_view(tokenizer, ids[:_SHOWN_TOKENS], mask[:_SHOWN_TOKENS], PLAIN)
    more = len(ids) - _SHOWN_TOKENS
    rest = f"\n... and {more} tokens more" if more > 0 else ""
    return StageError(
        what,
        on=f"{on}, {len(ids)} tokens, {sum(mask)} supervised:\n{view}{rest}\n",
        why=why,
        then="correct the row or the chat template; `masks ROW` shows any other row",
    )


def check_row(
    row: Row,
    ids: Sequence[int],
    mask: Sequence[int],
    *,
    borders: Borders,
    tokenizer: PreTrainedTokenizerFast,
    continues: bool = False,
) -> None:
    """Raise StageError where what is supervised is not the assistant's own text and its ends.

    Turns are compared from the last, so a row whose beginning was cut off passes. What `continues`
    in another row is raw text without an end.
    """
    turns = list(split_turns(ids, mask, borders))
    problem = _find_odd_token(turns, borders, continues=continues)
    problem = problem or _find_odd_text(row, turns, borders, tokenizer)
    if problem:
        on = f"row {row.id} ({row.source})" if row.source else f"row {row.id}"
        what = "the supervised text is not the assistant's own"
        raise make_error(tokenizer, ids, mask, on=on, what=what, why=problem)


def _find_odd_token(
    turns: Sequence[Sequence[int]], borders: Borders, *, continues: bool
) -> str | None:
    if not turns:
        return "nothing is supervised"
    if not all(borders.prompts.isdisjoint(turn) for turn in turns):
        return "a token is supervised that the chat template writes before an answer"
    if not all(turn[-1] in borders.ends for turn in (turns[:-1] if continues else turns)):
        return "the token that ends a turn is not supervised"
    return None


def _find_odd_text(
    row: Row, turns: Sequence[list[int]], borders: Borders, tokenizer: PreTrainedTokenizerFast
) -> str | None:
    decode = tokenizer.backend_tokenizer.decode
    texts = [decode(turn, skip_special_tokens=True) for turn in turns]
    if row.text is not None:
        whole = {row.text.strip(), _read_back(row.text, tokenizer).strip()}
        wrong = [each for each in texts if each.strip() not in whole]
        return f"{wrong[0][:400]!r} is not its text" if wrong else None
    answers = [each for each in row.messages if each.role == "assistant"]
    if len(texts) > len(answers):
        return f"{len(texts)} turns are supervised, and the assistant has {len(answers)}"
    pairs = zip(reversed(answers), reversed(texts), strict=False)
    found = (_find_difference(answer, text, borders, tokenizer) for answer, text in pairs)
    return next(filter(None, found), None)


def split_turns(ids: Sequence[int], mask: Sequence[int], borders: Borders) -> Iterator[list[int]]:
    """Yield the supervised ids of each turn, up to its end token or to where the mask ends."""
    assert len(ids) == len(mask), "one mask bit per token"
    bits = bytes(mask)
    begin = bits.find(1)
    while begin >= 0:
        behind = bits.find(0, begin)
        stop = len(bits) if behind < 0 else behind
        yield from _split_at_ends(list(ids[begin:stop]), borders)
        begin = bits.find(1, stop)


def _split_at_ends(run: list[int], borders: Borders) -> Iterator[list[int]]:
    begin = 0
    for end in compress(count(1), map(borders.ends.__contains__, run)):
        yield run[begin:end]
        begin = end
    if begin < len(run):
        yield run[begin:]


def _find_difference(
    answer: Message, turn: str, borders: Borders, tokenizer: PreTrainedTokenizerFast
) -> str | None:
    """Return how a turn's supervised text is not the answer; None if it is.

    Some tokenizers change what they read, its accents for one: then as they read it.
    """
    problem = _compare(answer, turn, borders)
    if problem is None:
        return None
    thinking = None if answer.thinking is None else _read_back(answer.thinking, tokenizer)
    changed = replace(answer, content=_read_back(answer.content, tokenizer), thinking=thinking)
    return problem if changed == answer else _compare(changed, turn, borders)


def _read_back(text: str, tokenizer: PreTrainedTokenizerFast) -> str:
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    back: str = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
    return back


def _compare(answer: Message, turn: str, borders: Borders) -> str | None:
    """Return how a turn's supervised text is not the answer; None if it is."""
    if answer.tool_calls:  # their form is the template's; the words and names are not
        words = [answer.content, *(call.name for call in answer.tool_calls)]
        missing = [each for each in words if each not in turn]
        return f"{missing[0][:80]!r} is not in {turn[:400]!r}" if missing else None
    if answer.thinking is None:
        said, forms = [answer.content], borders.forms
    else:
        said, forms = [answer.thinking, answer.content], borders.thought_forms
    if forms:
        fits = any(turn == _fill(form, said) for form in forms)
    else:
        blank = r"\s*(?:</?think>\s*)?" if answer.thinking is not None else r"\s*"
        pattern = blank.join(["", *map(re.escape, said), ""])
        fits = re.fullmatch(pattern, turn) is not None
    return None if fits else f"it is {turn[:400]!r}, and the answer {''.join(said)[:400]!r}"


def _fill(form: tuple[str, ...], said: list[str]) -> str:
    return form[0] + "".join(word + part for word, part in zip(said, form[1:], strict=True))
