"""Stage: a checkpoint -> ollama.json, what Ollama must be told of its chats.

In: `text`. Out: {"bos": ..., "template": Go's text/template, "stops": [...], "why": ""}. `bos` is
what the chat template begins with and Ollama puts in front itself, if the GGUF says so. Where
Ollama's language cannot say the chat template, `template` is "" and `why` tells it: better none
than one that writes other tokens than the model was taught.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.encoding import read_control_ids
from pipeline.data.rendering import Renderer, make_messages
from pipeline.data.row import Message
from pipeline.data.style import Style
from pipeline.errors import StageError
from pipeline.export.go_template import Pieces, Turn, check, find_pieces, make_go_template
from pipeline.log import say

NAME = "ollama.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    """None: the checkpoint says it all."""


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write ollama.json."""
    document = describe(Renderer(inputs["text"], Style()))
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    (out / NAME).write_text(text, encoding="utf-8")
    say(f"  no template for Ollama: {document['why']}" if document["why"] else "  said in Go")


def describe(renderer: Renderer) -> dict[str, Any]:
    """Return what ollama.json says."""
    bos = renderer.tokenizer.bos_token or ""
    ends = [_read(renderer, each) for each in sorted(renderer.end_ids)]
    try:
        pieces = find_pieces(lambda turns, ask: _render(renderer, turns, ask), bos)
        check(pieces, lambda turns, ask: _render(renderer, turns, ask), bos)
    except ValueError as error:
        return {"bos": "", "template": "", "stops": ends, "why": str(error)}
    stops = [*ends, *_find_marks(renderer, pieces)]
    return {
        "bos": bos if _render(renderer, [("user", "?")], True).startswith(bos) else "",
        "template": make_go_template(pieces),
        "stops": list(dict.fromkeys(stops)),
        "why": "",
    }


def _render(renderer: Renderer, turns: Sequence[Turn], ask: bool) -> str:
    on = "the chat template"
    messages = [Message(role=role, content=text) for role, text in turns]
    try:
        made = make_messages(messages, "text", on=on)
        return renderer.template.render_plainly(made, None, add_generation_prompt=ask, on=on)
    except StageError as error:
        raise ValueError(f"it refuses a conversation: {error.why}") from None


def _read(renderer: Renderer, token: int) -> str:
    return str(renderer.tokenizer.convert_ids_to_tokens(token))


def _find_marks(renderer: Renderer, pieces: Pieces) -> list[str]:
    """Return the control token that a user's turn begins with: a model that writes it has begun to
    ask itself."""
    controls = [_read(renderer, each) for each in read_control_ids(renderer.tokenizer)]
    found = [each for each in controls if each and each in pieces.before_user]
    return sorted(found, key=pieces.before_user.index)[:1]
