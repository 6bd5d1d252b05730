"""Canonical row -> token ids and completion mask, born together from one rendering.

The chat template is rendered with every character marked by the message that it came from (see
`tracking`); once for each shape of conversation, where that tells the others' characters, too (see
`layout`). A turn that is supervised reaches from where the model would begin to write it, to and
including the token that ends it. Nothing searches for a marker; a user's `[/INST]` is a text. Every
row is checked, or is an error: its text is transformers' own rendering, one BOS, each EOS
supervised, the assistant's words as they were given, no token that reaches over a boundary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from pipeline.data.chat_template import ChatTemplate
from pipeline.data.encoding import Encoded, Encoder, find_pieces, read_tokenizer
from pipeline.data.layout import FIRST, Layouts
from pipeline.data.row import Message, Row
from pipeline.data.style import Style
from pipeline.data.tracking import TEMPLATE, Tracked, track
from pipeline.errors import StageError

THINK_MARKS = ("<think>", "</think>")

_TOOLS = 1  # the origin of the tools' texts

_CALL_KEYS = ("tool_calls", "tool_call_id", "name")


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One row: `completion_mask[i]` is 1 where `input_ids[i]` is supervised."""

    input_ids: list[int]
    completion_mask: list[int]


def make_assistant_text(thinking: str, solution: str) -> str:
    """Return the assistant's turn: the thinking in a think block, then the solution.

    The one place that says so: what is graded is what was taught.
    """
    return f"<think>\n{thinking}\n</think>\n{solution}"


class Renderer:
    """Renders rows by one checkpoint's tokenizer and chat template."""

    def __init__(self, text: Path, style: Style) -> None:
        self.tokenizer = read_tokenizer(text)
        source = _read_template(text, self.tokenizer)
        self.template = ChatTemplate(source, self.tokenizer.special_tokens_map)
        self.end_ids = _read_ends(text, self.tokenizer)
        self.encoder = Encoder(self.tokenizer, self.end_ids)
        self._bos_id = self.tokenizer.bos_token_id
        self.layouts = Layouts()
        self._style = style

    def render(self, row: Row, *, on: str) -> Rendered:
        """Return the row's ids and mask. Raises StageError, naming `on`, for any doubt."""
        if row.text is not None:
            return self.frame_text(self.encode_text(row.text, on=on).ids, is_end=True)
        messages = make_messages(row.messages, self._style.thinking, on=on)
        tools = list(row.tools) or None
        encoded = None if tools else self._encode_known(messages, on=on)
        encoded = encoded or self._encode_marked(messages, tools, on=on)
        ranges = self._find_turns(row.messages, messages, tools, encoded, on=on)
        self._check_bos(encoded, on=on)
        return Rendered(input_ids=encoded.ids, completion_mask=make_mask(encoded, ranges, on=on))

    def render_prompt(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, on: str
    ) -> list[int]:
        """Return the ids of the messages, ready for the assistant's turn: what a server reads."""
        made = make_messages(messages, self._style.thinking, on=on)
        text = self._render_marked(made, list(tools), on=on, add_generation_prompt=True)
        return self.encoder.encode(text, on=on).ids

    def encode_text(self, text: str, *, on: str) -> Encoded:
        """Return raw text's own ids; at least one, or it is an error."""
        encoded = self.encoder.encode(Tracked(text, [(len(text), FIRST)]), on=on)
        if not encoded.ids:
            raise _bad_row("a row has no text", on=on, why="the tokenizer makes no token of it")
        return encoded

    def frame_text(self, ids: Sequence[int], *, is_end: bool) -> Rendered:
        """Return the ids of raw text behind BOS, and before EOS where the text ends.

        All is learnt but the BOS, which nothing predicts.
        """
        bos = [each for each in [self._bos_id] if each is not None]
        body = [*ids, *([self.tokenizer.eos_token_id] if is_end else [])]
        return Rendered(input_ids=[*bos, *body], completion_mask=[0] * len(bos) + [1] * len(body))

    def _render_marked(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        *,
        on: str,
        add_generation_prompt: bool = False,
    ) -> Tracked:
        """Return the template's text of the messages, each character with its origin."""
        return self.template.render(
            mark_messages(messages),
            track(tools, _TOOLS) or None,
            add_generation_prompt=add_generation_prompt,
            on=on,
        )

    def _encode_known(self, messages: list[dict[str, Any]], *, on: str) -> Encoded | None:
        """Return the ids of a rendering whose layout is known, without marking its characters.

        None of any other, and where a text spells a control token: there the marks must tell.
        """
        own = self.template.render_plainly(messages, None, add_generation_prompt=False, on=on)
        full = self.layouts.lay_out(messages, own)
        return None if full is None else self.encoder.encode_clean(full, on=on)

    def _encode_marked(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, *, on: str
    ) -> Encoded:
        """Return the ids of the rendering, its characters marked; its layout is learnt."""
        full = self._render_marked(messages, tools, on=on)
        self._check_text(messages, tools, full, on=on)
        if not tools:
            self.layouts.learn(messages, full)
        return self.encoder.encode(full, on=on)

    def _check_text(
        self, messages: list[dict[str, Any]], tools: list[Any] | None, full: Tracked, *, on: str
    ) -> None:
        """Compare with the function that everyone else renders by."""
        own = self.tokenizer.apply_chat_template(
            messages, tools=tools, chat_template=self.template.source, tokenize=False
        )
        if own != full:
            raise _bad_row(
                "the row is rendered differently by transformers", on=on, why=f"wrote {own[:400]!r}"
            )

    def _check_bos(self, encoded: Encoded, *, on: str) -> None:
        bos_id = self._bos_id
        if bos_id is None or bos_id in self.end_ids:
            return
        places = [each for each in encoded.controls if encoded.ids[each] == bos_id]
        if places != [0]:
            raise _bad_row(
                "a row does not begin with its only BOS",
                on=on,
                why=f"{len(places)} BOS tokens are there",
            )

    def _find_turns(
        self,
        turns: Sequence[Message],
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        encoded: Encoded,
        *,
        on: str,
    ) -> list[tuple[int, int]]:
        """Return begin and end, in characters of the text, of what is supervised."""
        answers = [number for number, turn in enumerate(turns) if turn.role == "assistant"]
        if not answers:
            raise _bad_row("a row teaches nothing", on=on, why="no turn is the assistant's")
        text, pieces = str.__str__(encoded.text), find_pieces(encoded.text)
        ranges = []
        for number in answers if self._style.supervise == "every" else answers[-1:]:
            _check_words(messages[number], text, pieces, number, on=on)
            begin = self._find_begin(messages[:number], tools, text, pieces, on=on)
            ranges.append((begin, self._find_end(encoded, pieces, number, on=on)))
        return ranges

    def _find_begin(
        self,
        earlier: list[dict[str, Any]],
        tools: list[Any] | None,
        text: str,
        pieces: list[tuple[int, int, int]],
        *,
        on: str,
    ) -> int:
        """Return where the model would begin to write: behind what the generation prompt adds.

        That is where the prompt ends, if the text begins with all of it. Some templates move or
        shorten earlier turns: then both texts are compared from the last character of an earlier
        message on.
        """
        first = next(i for i, piece in enumerate(pieces) if _is_of(piece[2], len(earlier)))
        last = next((p[1] for p in reversed(pieces[:first]) if p[2] != TEMPLATE), 0)
        whole = self.template.render_plainly(earlier, tools, add_generation_prompt=True, on=on)
        if last <= len(whole) <= pieces[first][0] and text.startswith(whole):
            return len(whole)
        prompt = self._render_marked(earlier, tools, on=on, add_generation_prompt=True)
        said = next((p[1] for p in reversed(find_pieces(prompt)) if p[2] != TEMPLATE), 0)
        added, between = str.__str__(prompt)[said:], text[last : pieces[first][0]]
        if not between.startswith(added):
            raise _bad_row(
                "the chat template writes another prompt once the answer is there",
                on=on,
                why=f"{added!r} is no beginning of {between!r}",
            )
        return last + len(added)

    def _find_end(
        self, encoded: Encoded, pieces: list[tuple[int, int, int]], number: int, *, on: str
    ) -> int:
        """Return where the token ends that ends the turn."""
        last = max(i for i, piece in enumerate(pieces) if _is_of(piece[2], number))
        limit = next((p[0] for p in pieces[last + 1 :] if p[2] >= FIRST), len(encoded.text))
        for token in encoded.list_controls(pieces[last][1]):
            _, end = encoded.span_of(token)
            if encoded.ids[token] in self.end_ids and end <= limit:
                return end
        raise _bad_row(
            "the EOS is not supervised",
            on=on,
            why="the chat template does not end the assistant's turn, so it would never stop",
        )


def _read_template(text: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    source = tokenizer.chat_template
    if isinstance(source, str) and source:
        return source
    raise StageError(
        "the checkpoint has no chat template",
        on=text.name,
        why="it is a base model, or its files are not complete",
        then="name a template by [dataset] template in the recipe",
    )


def _read_ends(text: Path, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Return the ids at which the model stops: EOS, and what its own settings name."""
    path = text / "generation_config.json"
    ends = json.loads(path.read_bytes()).get("eos_token_id") if path.is_file() else None
    named = ends if isinstance(ends, list) else [ends]
    return frozenset({tokenizer.eos_token_id, *named} - {None})


def _bad_row(what: str, *, on: str, why: str) -> StageError:
    return StageError(what, on=on, why=why, then="correct the row or the chat template")


def _is_of(origin: int, number: int) -> bool:
    return origin >= FIRST and (origin - FIRST) // 2 == number


def make_messages(turns: Sequence[Message], thinking: str, *, on: str) -> list[dict[str, Any]]:
    """Return the turns as chat templates read them."""
    return [_make_message(turn, thinking, on=on) for turn in turns]


def _make_message(turn: Message, thinking: str, *, on: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.thinking is not None:
        message |= _write_thinking(turn, turn.thinking, thinking, on=on)
    if turn.tool_calls:
        message["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in turn.tool_calls
        ]
    if turn.tool_call_id is not None:
        message["tool_call_id"] = turn.tool_call_id
    if turn.name is not None:
        message["name"] = turn.name
    return message


def _write_thinking(turn: Message, thought: str, thinking: str, *, on: str) -> Mapping[str, Any]:
    if thinking == "text":
        for mark in THINK_MARKS:
            if mark in thought:
                raise _bad_row(
                    f"a row's thinking contains {mark}",
                    on=on,
                    why="the think block is written around the thinking by this project",
                )
        return {"content": make_assistant_text(thought, turn.content)}
    if thinking == "chunks":
        said = [{"type": "text", "text": turn.content}] if turn.content else []
        return {"content": [{"type": "thinking", "thinking": thought}, *said]}
    assert thinking == "field", f"the recipe let thinking {thinking!r} through"
    # transformers gives templates both names.
    return {"thinking": thought, "reasoning_content": thought}


def mark_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages with each text marked by its message.

    The even origin is of what was said, the odd one of calls and names.
    """
    return [
        {
            key: value if key == "role" else _mark(value, FIRST + 2 * number + (key in _CALL_KEYS))
            for key, value in message.items()
        }
        for number, message in enumerate(messages)
    ]


def _mark(value: Any, origin: int) -> Any:
    """Mark a text, or those of chunks and calls; of which type one is, is no text."""
    if not isinstance(value, list):
        return track(value, origin)
    return [
        {key: item if key == "type" else track(item, origin) for key, item in each.items()}
        for each in value
    ]


def _check_words(
    message: Mapping[str, Any],
    text: str,
    pieces: list[tuple[int, int, int]],
    number: int,
    *,
    on: str,
) -> None:
    """Raise unless the assistant's words stand there once, whole and in their order."""
    said = FIRST + 2 * number
    written = "".join(text[p[0] : p[1]] for p in pieces if p[2] == said)
    content = message["content"]
    if isinstance(content, list):
        content = "".join(chunk.get("thinking", "") + chunk.get("text", "") for chunk in content)
    content = message.get("reasoning_content", "") + content
    if written != content:
        raise _bad_row(
            "the chat template changes the assistant's text",
            on=on,
            why=f"wrote {written[:400]!r} for {content[:400]!r}",
        )
    if not any(_is_of(piece[2], number) for piece in pieces):
        raise _bad_row(
            "an assistant's turn is empty", on=on, why="it has neither words nor tool calls"
        )


def make_mask(encoded: Encoded, ranges: Sequence[tuple[int, int]], *, on: str) -> list[int]:
    """Return 1 for each token that lies in a range of characters, 0 for each that lies in none.

    Raises StageError for a token that reaches over an end of a range.
    """
    mask = [0] * len(encoded.ids)
    for begin, end in ranges:
        first, behind = encoded.find_token(begin), encoded.find_token(end)
        for token, edge in ((first, begin), (behind, end)):
            if token and encoded.span_of(token - 1)[1] > edge:
                around = str.__str__(encoded.text)[max(0, begin - 40) : begin]
                raise _bad_row("tokens reach over the end of the prompt", on=on, why=f"{around!r}")
        mask[first:behind] = [1] * (behind - first)
    return mask
