"""A template that the recipe chooses is the checkpoint's, with all that must agree with it."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.checkpoint.chosen_template import choose_template
from pipeline.data.templates import BUILT_IN
from pipeline.errors import StageError
from tests.data.families import write_family
from tests.tiny_text import CHAT_TEMPLATE, write_tokenizer

pytestmark = pytest.mark.train


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def test_the_end_of_an_answer_becomes_the_eos_where_nothing_stops_there(tmp_path: Path) -> None:
    """As a base model with ChatML's marks in its vocabulary, trained to chat."""
    write_family(tmp_path, "chatml")
    config = tmp_path / "tokenizer_config.json"
    config.write_text(
        json.dumps(read(config) | {"eos_token": "<|endoftext|>", "chat_template": "{{ old }}"})
    )
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_text('{"eos_token_id": 0, "other": 7}')
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<|endoftext|>"}')
    choose_template(tmp_path, BUILT_IN["chatml"])
    assert read(tmp_path / "config.json") == {"eos_token_id": 2, "other": 7}
    assert read(tmp_path / "generation_config.json") == {"eos_token_id": 2, "other": 7}
    assert read(tmp_path / "special_tokens_map.json") == {"eos_token": "<|im_end|>"}
    assert read(config)["eos_token"] == "<|im_end|>"
    assert "chat_template" not in read(config)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.eos_token_id == 2
    assert loaded.chat_template == BUILT_IN["chatml"]


@pytest.mark.parametrize("ends", [2, [0, 2]])
def test_where_the_model_stops_there_already_nothing_else_changes(
    tmp_path: Path, ends: object
) -> None:
    write_family(tmp_path, "chatml")
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(read(config) | {"eos_token": "<|endoftext|>"}))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    choose_template(tmp_path, BUILT_IN["chatml"])
    assert read(tmp_path / "generation_config.json") == {"eos_token_id": ends}
    assert read(config)["eos_token"] == "<|endoftext|>"


def test_a_user_s_own_file(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    mine = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}\n"
    choose_template(tmp_path, mine)
    assert (tmp_path / "chat_template.jinja").read_text() == mine
    assert read(tmp_path / "tokenizer_config.json")["eos_token"] == "</s>"


@pytest.mark.parametrize(
    ("source", "what", "why"),
    [
        (BUILT_IN["chatml"], "not for this checkpoint", "'<|im_end|>\\n'"),
        ("{% for %}", "the chat template fails", "Expected an expression"),
        ("{{ raise_exception('no tools today') }}", "the chat template fails", "no tools today"),
        ("{{ messages[9].content }}", "the chat template fails", "9"),
        ("{{ ''.__class__.__mro__ }}", "the chat template fails", "unsafe"),
        ("{{ bos_token }}{{ messages[0].content }}", "leaves the answer out", "<s>"),
    ],
)
def test_a_template_that_cannot_be_meant(tmp_path: Path, source: str, what: str, why: str) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(StageError, match=what) as caught:
        choose_template(tmp_path, source)
    assert why in caught.value.why
    assert "[dataset] template" in caught.value.then
    assert (tmp_path / "chat_template.jinja").read_text() == CHAT_TEMPLATE
