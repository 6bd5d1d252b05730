"""A chat template is said in Go only where the two agree on every conversation."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.rendering import Renderer
from pipeline.data.style import Style
from pipeline.data.templates import BUILT_IN
from pipeline.export.ollama import Options, describe, run
from tests.tiny_text import write_tokenizer

pytestmark = pytest.mark.convert

_STATEMENT = re.compile(r"\{\{- (.*?) \}\}", re.DOTALL)


def _describe(folder: Path, template: str) -> dict[str, Any]:
    write_tokenizer(folder, template)
    return describe(Renderer(folder, Style()))


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_of_our_templates_is_said_or_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    told = _describe(tmp_path, BUILT_IN[name])
    assert bool(told["template"]) != bool(told["why"])


def test_what_is_written_around_turns_is_a_string_of_go(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% if messages[0].role != 'system' %}<|s|>\nA \"{{ '{{' }}\"\n{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
        "{{ eos_token if m.role == 'assistant' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n<think>\n{% endif %}"
    )
    told = _describe(tmp_path, template)
    assert told["why"] == ""
    assert told["bos"] == "<s>"
    # Nothing but actions, each of which trims what stands before it.
    assert _STATEMENT.sub("", told["template"]).strip() == ""
    said = [json.loads(each) for each in _STATEMENT.findall(told["template"]) if each[0] == '"']
    assert said == [
        '<|s|>\nA "{{"\n',
        *("<|system|>\n", "\n"),
        *("<|user|>\n", "\n<|assistant|>\n<think>\n", "\n<|assistant|>\n"),
        "</s>\n",
    ]
    assert "</s>" in told["stops"]


def test_a_system_prompt_within_the_first_turn(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% set s = messages[0].content if messages[0].role == 'system' else '' %}"
        "{% for m in (messages[1:] if s else messages) %}{% if m.role == 'user' %}[INST]"
        "{{ (s + '\\n\\n') if s and loop.first }}{{ m.content }}[/INST]"
        "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
    )
    told = _describe(tmp_path, template)
    assert told["why"] == ""
    assert '$system = ""' in told["template"]


@pytest.mark.parametrize(
    ("template", "why"),
    [
        # The system prompt stands in the last turn, not in the first.
        (BUILT_IN["mistral-v3"], "not the sum of its turns"),
        ("{{ raise_exception('never') }}", "never"),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "write each turn once"),
        (
            "{% for m in messages %}{{ bos_token }}{{ m.role }}:{{ m.content }}{% endfor %}",
            "every turn begins with BOS",
        ),
        (
            "{% for m in messages %}{{ loop.length }}{{ m.role }}{{ m.content }}{% endfor %}",
            "the first turn begins otherwise",
        ),
    ],
)
def test_what_go_cannot_say_is_refused(tmp_path: Path, template: str, why: str) -> None:
    told = _describe(tmp_path, template)
    assert told["template"] == ""
    assert why in told["why"]


def test_the_stage_writes_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "out").mkdir()
    told = _describe(tmp_path / "text", BUILT_IN[sorted(BUILT_IN)[0]])
    run({"text": tmp_path / "text"}, Options(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "ollama.json").read_text()) == told
