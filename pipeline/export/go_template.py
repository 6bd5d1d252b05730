"""A chat template in Jinja -> the same in Ollama's language (Go's text/template), where it can be.

A chat template may compute anything. Most write some text before and after each turn, and those can
be said in Go: the texts are read off renderings of known turns, and the result is compared with the
template's own renderings of other conversations. What does not agree everywhere is refused, with
the reason, and never handed on as nearly right. Standard library alone, and pure.

BOS, which Ollama puts in front itself, is left out.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Turn = tuple[str, str]
"""Role and text."""

Render = Callable[[Sequence[Turn], bool], str]
"""Turns, and whether the model is to answer -> the template's text; ValueError where it refuses."""

_SYSTEM, _USER, _ANSWER, _NEXT = "Qsystem", "Quser", "Qanswer", "Qnext"


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """What stands around the turns.

    `without_system` stands first where there is no system prompt: a default one. Where
    `is_folded`, a system prompt stands in the first user's turn, before its text.
    """

    without_system: str
    before_system: str
    after_system: str
    is_folded: bool
    before_user: str
    after_last_user: str
    after_user: str
    after_answer: str


def find_pieces(render: Render, bos: str) -> Pieces:
    """Return the pieces. Raises ValueError, with the reason, for what they cannot say."""
    asked = _split(render([("user", _USER)], True), _USER)
    told = _split(render([("user", _USER), ("assistant", _ANSWER)], False), _USER, _ANSWER)
    again = render([("user", _USER), ("assistant", _ANSWER), ("user", _NEXT)], True)
    between = _split(again, _USER, _ANSWER, _NEXT)[2]
    head, after_last_user, after_answer = _strip(asked[0], bos), asked[1], told[2]
    before_user = _cut_start(between, after_answer, "a turn ends otherwise when another follows")
    if bos and bos in before_user:
        raise ValueError("every turn begins with BOS, which Ollama writes once")
    without_system = _cut_end(head, before_user, "the first turn begins otherwise than the others")
    pieces = Pieces(
        without_system=without_system,
        before_system="",
        after_system="",
        is_folded=False,
        before_user=before_user,
        after_last_user=after_last_user,
        after_user=told[1],
        after_answer=after_answer,
    )
    return _add_system(pieces, render, bos)


def _add_system(pieces: Pieces, render: Render, bos: str) -> Pieces:
    text = render([("system", _SYSTEM), ("user", _USER)], True)
    first, second, _ = _split(text, _SYSTEM, _USER)
    first = _strip(first, bos)
    is_folded = bool(pieces.before_user) and first == pieces.before_user
    if not is_folded:
        why = "the first turn begins otherwise behind a system prompt"
        second = _cut_end(second, pieces.before_user, why)
    return Pieces(
        **vars(pieces)
        | {"before_system": "" if is_folded else first, "after_system": second}
        | {"is_folded": is_folded}
    )


def check(pieces: Pieces, render: Render, bos: str) -> None:
    """Raise ValueError unless the pieces give the template's own text of every conversation."""
    system, first = ("system", "Be brief.\nBe right."), ("user", 'What is "x" {{ in }} `2x = 4`?')
    more = [
        ("assistant", "2\n\nis right"),
        ("user", "Sure?"),
        ("assistant", "Yes"),
        ("user", "So?"),
    ]
    for turns in (
        [first, *more[:count]] if not with_system else [system, first, *more[:count]]
        for with_system in (False, True)
        for count in (0, 2, 4)
    ):
        own = _strip(render(turns, True), bos)
        if write(pieces, turns) != own:
            roles = ", ".join(role for role, _ in turns)
            raise ValueError(f"a conversation ({roles}) is not the sum of its turns")


def write(pieces: Pieces, turns: Sequence[Turn]) -> str:
    """Return what the Go template writes of turns of which the last is the user's."""
    system = "".join(text for role, text in turns if role == "system")
    parts = [] if system else [pieces.without_system]
    is_pending = pieces.is_folded and bool(system)
    for number, (role, text) in enumerate(turns):
        if role == "system" and not pieces.is_folded:
            parts += [pieces.before_system, text, pieces.after_system]
        elif role == "user":
            is_last = number == len(turns) - 1
            folded = [system, pieces.after_system] if is_pending else []
            after = pieces.after_last_user if is_last else pieces.after_user
            parts += [pieces.before_user, *folded, text, after]
            is_pending = False
        elif role == "assistant":
            parts += [text, pieces.after_answer]
    return "".join(parts)


def make_go_template(pieces: Pieces) -> str:
    """Return the template. Every text of ours is a string in an action, so that no white space in
    it is trimmed and no `{{` in it is code."""
    lines = [] if not pieces.is_folded else ["{{- $system := .System }}"]
    if pieces.without_system:
        lines.append(f"{{{{- if not .System }}}}{say_text(pieces.without_system)}{{{{- end }}}}")
    lines += [
        "{{- range $i, $_ := .Messages }}",
        "{{- $last := eq (len (slice $.Messages $i)) 1 }}",
    ]
    folded = ""
    if pieces.is_folded:
        lines.append('{{- if eq .Role "user" }}')
        folded = (
            f"{{{{- if $system }}}}{{{{- $system }}}}{say_text(pieces.after_system)}"
            '{{- $system = "" }}{{- end }}'
        )
    else:
        system = (
            f"{say_text(pieces.before_system)}{{{{- .Content }}}}{say_text(pieces.after_system)}"
        )
        lines += [f'{{{{- if eq .Role "system" }}}}{system}', '{{- else if eq .Role "user" }}']
    after = say_text(pieces.after_last_user)
    if pieces.after_last_user != pieces.after_user:
        after = (
            f"{{{{- if $last }}}}{after}{{{{- else }}}}{say_text(pieces.after_user)}{{{{- end }}}}"
        )
    lines += [
        f"{say_text(pieces.before_user)}{folded}{{{{- .Content }}}}{after}",
        '{{- else if eq .Role "assistant" }}{{- .Content }}'
        f"{{{{- if not $last }}}}{say_text(pieces.after_answer)}{{{{- end }}}}",
        "{{- end }}",
        "{{- end }}",
    ]
    return "\n".join(lines)


def say_text(text: str) -> str:
    """Return an action that writes the text; nothing for none."""
    return f"{{{{- {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _split(text: str, *marks: str) -> list[str]:
    """Return what stands around the marks, each of which must stand there once, in order."""
    parts = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise ValueError("it does not write each turn once, and in order")
        parts.append(before)
    return [*parts, text]


def _strip(text: str, bos: str) -> str:
    return text.removeprefix(bos) if bos else text


def _cut_start(text: str, start: str, why: str) -> str:
    if not text.startswith(start):
        raise ValueError(why)
    return text[len(start) :]


def _cut_end(text: str, end: str, why: str) -> str:
    if not text.endswith(end):
        raise ValueError(why)
    return text[: len(text) - len(end)]
