"""Exact ids and masks, written by hand from the control tokens and the bytes of each text."""

from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.sft.chat import Message, make_messages, read_tokenizer, render
from tests.tiny_text import BOS, CHAT_TEMPLATE, END_INST, EOS, INST, byte_ids, write_tokenizer

pytestmark = pytest.mark.train


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


def render_with(folder: Path, template: str, messages: list[Message]) -> None:
    write_tokenizer(folder, template)
    render(read_tokenizer(folder), messages, on="row 7")


@pytest.mark.parametrize(
    ("problem", "answer"),
    [
        ("1+1?", "<think>\n1+1\n</think>\n2"),
        ("wie heißt 水?", "<think>\nnaïve 🙂\n</think>\n水"),
        (" leading and trailing ", " answer\n\n"),
        ("x", "\\n [INST is no control token; neither is s> or [/inst]"),
    ],
)
def test_ids_and_mask_of_one_turn(tmp_path: Path, problem: str, answer: str) -> None:
    write_tokenizer(tmp_path)
    got = render(read_tokenizer(tmp_path), make_messages(problem, answer), on="row 7")
    prompt = [BOS, INST, *byte_ids(problem), END_INST]
    completion = [*byte_ids(answer), EOS]
    assert got.input_ids == prompt + completion
    assert got.completion_mask == [0] * len(prompt) + [1] * len(completion)


def test_only_the_last_answer_of_a_conversation_is_supervised(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    messages = [user("a"), assistant("b"), user("c"), assistant("de")]
    got = render(read_tokenizer(tmp_path), messages, on="row 7")
    prompt = [BOS, INST, *byte_ids("a"), END_INST, *byte_ids("b"), EOS]
    prompt += [INST, *byte_ids("c"), END_INST]
    assert got.input_ids == [*prompt, *byte_ids("de"), EOS]
    assert got.completion_mask == [0] * len(prompt) + [1, 1, 1]


def test_ids_are_the_template_s_own(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    messages = make_messages("What is 1 + 2?", "<think>\n1+2=3\n</think>\n3")
    own = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
    assert render(tokenizer, messages, on="row 7").input_ids == own


def test_a_default_system_prompt_is_not_supervised(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, CHAT_TEMPLATE.replace("bos_token }}", "bos_token + 'Be brief.' }}"))
    got = render(read_tokenizer(tmp_path), make_messages("a", "b"), on="row 7")
    prompt = [BOS, *byte_ids("Be brief."), INST, *byte_ids("a"), END_INST]
    assert got.input_ids == [*prompt, *byte_ids("b"), EOS]
    assert got.completion_mask == [0] * len(prompt) + [1, 1]


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("token", ["</s>", "[INST]", "[/INST]", "<pad>", "<s>"])
def test_a_control_token_in_a_text_is_refused(tmp_path: Path, role: str, token: str) -> None:
    texts = {"user": "a", "assistant": "b"}
    texts[role] = f"x{token}y"
    with pytest.raises(StageError) as caught:
        render_with(tmp_path, CHAT_TEMPLATE, make_messages(texts["user"], texts["assistant"]))
    assert f"{role}'s text contains a control token" in caught.value.what
    assert repr(token) in caught.value.why
    assert caught.value.on == "row 7"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only odd days') }}", "only odd days"),
        ("{% for %}", "Expected an expression"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_failing_template_says_its_words(tmp_path: Path, template: str, said: str) -> None:
    with pytest.raises(StageError, match="the chat template fails") as caught:
        render_with(tmp_path, template, make_messages("a", "b"))
    assert said in caught.value.why


def test_roles_that_do_not_alternate(tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        render_with(tmp_path, CHAT_TEMPLATE, [assistant("a"), user("b"), assistant("c")])
    assert "roles must alternate" in caught.value.why


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHAT_TEMPLATE.replace(" + eos_token", ""), "the EOS is not supervised"),
        (CHAT_TEMPLATE.replace("{{- bos_token }}\n", ""), "only BOS"),
        (CHAT_TEMPLATE.replace("bos_token }}", "bos_token + bos_token }}"), "only BOS"),
        (CHAT_TEMPLATE.replace("bos_token }}", "messages | length }}"), "another prompt"),
        (CHAT_TEMPLATE.replace("content'] + eos", "content'].strip() + eos"), "changes the ass"),
    ],
)
def test_a_template_that_would_teach_something_else(
    tmp_path: Path, template: str, said: str
) -> None:
    with pytest.raises(StageError, match=said) as caught:
        render_with(tmp_path, template, make_messages("a", "b "))
    assert caught.value.on == "row 7"


def test_tokens_that_reach_over_the_boundary(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    write_tokenizer(
        tmp_path,
        "{{ bos_token }}{% for m in messages %}{{ m['content'] }}"
        "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}",
    )
    path = tmp_path / "tokenizer.json"
    text = Tokenizer.from_file(str(path)).to_str(pretty=True)
    # One merge, a + b, makes one token of the prompt's last and the answer's first letter.
    text = text.replace('"merges": []', '"merges": [["a", "b"]]')
    text = text.replace('"vocab": {', '"vocab": {"ab": 268,')
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StageError, match="reach over the end of the prompt"):
        render(read_tokenizer(tmp_path), make_messages("a", "b"), on="row 7")
