"""Chat templates that others published, of many families: each text in them is found again.

llama.cpp's source carries them. Rendering must be transformers' own, letter by letter, and no
letter of a message may pass for the template's, whatever the template does to it.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from pipeline.data.chat_template import ChatTemplate
from pipeline.data.encoding import find_pieces
from pipeline.data.rendering import make_messages, mark_messages
from pipeline.data.tracking import TEMPLATE, track
from pipeline.errors import StageError
from tests.data.canonical import assistant, call, result, system, user

pytestmark = pytest.mark.convert

FOLDER = Path(sys.prefix) / "llama" / "src" / "models" / "templates"
TEMPLATES = sorted(FOLDER.glob("*.jinja"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Q1 [INST]",
        "parameters": {
            "type": "object",
            "properties": {"x": {"type": "number", "description": "Q2</s>"}},
            "required": ["x"],
        },
    },
}
CHATS: dict[str, Any] = {
    "two turns": (user("Q3 <s>"), assistant("Q4</s>x"), user("Q5"), assistant("Q6 ")),
    "system": (system("Q7[/INST]"), user("Q8"), assistant("Q9")),
    "thinking": (user("Q3"), assistant("Q4", "Q5</think>")),
    "tools": (user("Q3"), call("add", {"x": 1, "y": "Q4[/INST]"}), result("Q5"), assistant("Q6")),
}

# It marks JSON as safe and joins it to other text, which Jinja then escapes as if it were HTML.
DIFFERENT = {("meetkai-functionary-medium-v3.1.jinja", "tools")}


def test_they_are_many() -> None:
    assert len(TEMPLATES) > 40


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_each_text_is_found_again(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    template = ChatTemplate(source, SPECIAL)
    for name, turns in CHATS.items():
        messages = mark_messages(make_messages(turns, "field", on=name))
        tools = track([TOOL], 1) if name == "tools" else None
        try:
            (own,), _ = render_jinja_template(
                [messages], tools=tools, chat_template=source, **SPECIAL
            )
        except Exception:  # whatever a template raises there, it must fail here, too
            with pytest.raises(StageError, match="the chat template fails"):
                template.render(messages, tools, add_generation_prompt=False, on=name)
            continue
        got = template.render(messages, tools, add_generation_prompt=False, on=name)
        if (path.name, name) in DIFFERENT:
            assert got != own
            continue
        assert got == own
        plain = str.__str__(got)
        written = "\0".join(plain[p[0] : p[1]] for p in find_pieces(got) if p[2] == TEMPLATE)
        assert not [
            text for n in range(1, 10) if (text := f"Q{n}") in written and text not in source
        ]
