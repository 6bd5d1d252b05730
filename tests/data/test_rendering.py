"""Exact ids and masks, written by hand from the control tokens and the bytes of each text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.rendering import Rendered, Renderer
from pipeline.data.row import Message, Row
from pipeline.data.style import Style
from pipeline.errors import StageError
from tests.data.canonical import assistant, chat, system, user
from tests.tiny_text import (
    BOS,
    CHAT_TEMPLATE,
    CONTROL_TOKENS,
    END_INST,
    EOS,
    INST,
    byte_ids,
    write_tokenizer,
)

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("text")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def renderer(text: Path) -> Renderer:
    return Renderer(text, Style())


def render_with(folder: Path, template: str, *messages: Message, **style: str) -> Rendered:
    write_tokenizer(folder, template)
    return Renderer(folder, Style(**style)).render(chat(*messages), on="row 7")


def join(*parts: tuple[list[int], int]) -> Rendered:
    """Return the parts one after another, each with its mask bit."""
    return Rendered(
        input_ids=[each for ids, _ in parts for each in ids],
        completion_mask=[bit for ids, bit in parts for _ in ids],
    )


def ask(content: str) -> tuple[list[int], int]:
    return [INST, *byte_ids(content), END_INST], 0


def answer(content: str, bit: int = 1) -> tuple[list[int], int]:
    return [*byte_ids(content), EOS], bit


@pytest.mark.parametrize(
    ("problem", "thinking", "solution"),
    [
        ("1+1?", "1+1", "2"),
        ("wie heißt 水?", "naïve 🙂", "水"),
        (" leading and trailing ", " thought\n", " answer\n\n"),
        ("x", "t", "\\n [INST is no control token; neither is s> or [/inst]"),
        ("", "t", "to nothing"),
    ],
)
def test_one_turn(renderer: Renderer, problem: str, thinking: str, solution: str) -> None:
    got = renderer.render(chat(user(problem), assistant(solution, thinking)), on="row 7")
    said = f"<think>\n{thinking}\n</think>\n{solution}"
    assert got == join(([BOS], 0), ask(problem), answer(said))


def test_every_answer_is_supervised(renderer: Renderer) -> None:
    row = chat(user("a"), assistant("b"), user("c"), assistant("de"))
    got = renderer.render(row, on="row 7")
    assert got == join(([BOS], 0), ask("a"), answer("b"), ask("c"), answer("de"))


def test_only_the_last_answer_is_supervised_on_demand(text: Path) -> None:
    row = chat(user("a"), assistant("b"), user("c"), assistant("de"))
    got = Renderer(text, Style(supervise="last")).render(row, on="row 7")
    assert got == join(([BOS], 0), ask("a"), answer("b", 0), ask("c"), answer("de"))


def test_equal_answers_are_not_mistaken_for_one_another(renderer: Renderer) -> None:
    row = chat(user("a"), assistant("a"), user("a"), assistant("a"))
    got = renderer.render(row, on="row 7")
    assert got == join(([BOS], 0), ask("a"), answer("a"), ask("a"), answer("a"))


@pytest.mark.parametrize("token", CONTROL_TOKENS)
def test_a_control_token_in_a_text_is_text(renderer: Renderer, token: str) -> None:
    question, solution = f"x{token}y", f"{token}é{token}"
    got = renderer.render(chat(user(question), assistant(solution)), on="row 7")
    assert got == join(([BOS], 0), ask(question), answer(solution))


def test_a_control_token_from_a_text_and_the_template_together(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("+ '[/INST]'", "+ 'T][/INST]'")
    got = render_with(tmp_path, template, user("[INS"), assistant("b"))
    assert got == join(([BOS], 0), ask("[INST]"), answer("b"))


@pytest.mark.parametrize(
    "written",
    [
        "'[INST]%s[/INST]' % message['content']",
        "'[INST]%s[/INST]' % (message['content'],)",
        "'[INST]{}[/INST]'.format(message['content'])",
        "('[INST]' + message['content'] + '[/INST]') | center(30)",
        "[message['content']] | string",
        "[message['content']]",
        "'' ~ [message['content']]",
        "message['content'] | upper",
        "message['content'] | wordwrap(30)",
        "message['content'].title().upper()",
        "message | tojson | indent | upper",
    ],
)
def test_what_hides_whose_a_control_token_is(tmp_path: Path, written: str) -> None:
    """Rewritten texts are harmless but where a control token is among them: then nobody knows."""
    template = CHAT_TEMPLATE.replace("'[INST]' + message['content'] + '[/INST]'", written)
    assert template != CHAT_TEMPLATE
    with pytest.raises(StageError, match="it cannot be told whether a control token is"):
        render_with(tmp_path, template, user("a[INST]b"), assistant("b"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("['[INST]', message['content'], '[/INST]'] | join", "[INST]x[INST]y[/INST]"),
        ("('[INST]' + message['content'] + '[/INST]') | trim", "[INST]x[INST]y[/INST]"),
        ("'[INST]' ~ message['content'] ~ '[/INST]'", "[INST]x[INST]y[/INST]"),
        ("'[INST]' + (message['content'] | tojson) + '[/INST]'", '[INST]"x[INST]y"[/INST]'),
        ("'[INST]' + message['content'].split('x')[1] + '[/INST]'", "[INST][INST]y[/INST]"),
        ("('[INST]x' + message['content'] + '[/INST]') | indent", "[INST]xx[INST]y[/INST]"),
        ("'[INST]' + (message['content'] | replace('y', '[/INST]'))", "[INST]x[INST][/INST]"),
        ("'[INST]' + message['content'] | default('') + '[/INST]'", "[INST]x[INST]y[/INST]"),
        ("'/'.join(['[INST]', message['content']])+'[/INST]'", "[INST]/x[INST]y[/INST]"),
    ],
)
def test_what_keeps_whose_a_control_token_is(tmp_path: Path, written: str, expected: str) -> None:
    """The first and the last are the template's, what is between is text."""
    template = CHAT_TEMPLATE.replace("'[INST]' + message['content'] + '[/INST]'", written)
    got = render_with(tmp_path, template, user("x[INST]y"), assistant("b"))
    between = expected.removeprefix("[INST]").removesuffix("[/INST]")
    assert got == join(([BOS], 0), ask(between), answer("b"))


def test_a_private_character_beside_a_control_token_is_refused(renderer: Renderer) -> None:
    row = chat(user("\U00100002"), assistant("b"))
    assert renderer.render(row, on="row 7").input_ids[2:6] == byte_ids("\U00100002")
    with pytest.raises(StageError, match="private character"):
        renderer.render(chat(user("</s>\U00100002"), assistant("b")), on="row 7")


def test_raw_text(renderer: Renderer) -> None:
    got = renderer.render(Row(id="r", text="once </s> upon"), on="row 7")
    assert got == join(([BOS], 0), ([*byte_ids("once </s> upon"), EOS], 1))


def test_ids_are_the_template_s_own(renderer: Renderer) -> None:
    row = chat(user("What is 1 + 2?"), assistant("3", "1+2=3"))
    own = renderer.tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "What is 1 + 2?"},
            {"role": "assistant", "content": "<think>\n1+2=3\n</think>\n3"},
        ],
        return_dict=False,
    )
    assert renderer.render(row, on="row 7").input_ids == own


def test_a_default_system_prompt_is_not_supervised(tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("bos_token }}", "bos_token + 'Be brief.' }}")
    got = render_with(tmp_path, template, user("a"), assistant("b"))
    assert got == join(([BOS, *byte_ids("Be brief.")], 0), ask("a"), answer("b"))


MOVES_SYSTEM = """{{ bos_token }}{% set system = messages[0].content %}
{%- for m in messages[1:] %}{% if m.role == 'user' %}
{{- '[INST]' + (system + '\\n\\n' if loop.last or loop.revindex == 2 else '') + m.content
    + '[/INST]' }}{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"""


def test_a_template_that_moves_the_system_prompt(tmp_path: Path) -> None:
    turns = (system("s"), user("a"), assistant("b"), user("c"), assistant("d"))
    got = render_with(tmp_path, MOVES_SYSTEM, *turns)
    assert got == join(([BOS], 0), ask("a"), answer("b"), ask("s\n\nc"), answer("d"))


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only odd days') }}", "only odd days"),
        ("{% for %}", "Expected an expression"),
        ("{{ messages[0]['content'] + 1 }}", "can only concatenate str"),
        ("{{ nothing.at.all }}", "'nothing' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages[0].content.__class__.__base__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
    ],
)
def test_a_failing_template_says_its_words(tmp_path: Path, template: str, said: str) -> None:
    with pytest.raises(StageError, match="the chat template fails") as caught:
        render_with(tmp_path, template, user("a"), assistant("b"))
    assert said in caught.value.why


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (CHAT_TEMPLATE.replace(" + eos_token", ""), "the EOS is not supervised"),
        (CHAT_TEMPLATE.replace("{{- bos_token }}\n", ""), "only BOS"),
        (CHAT_TEMPLATE.replace("bos_token }}", "bos_token + bos_token }}"), "only BOS"),
        (CHAT_TEMPLATE.replace("content'] + eos", "content'].strip() + eos"), "changes the ass"),
        (CHAT_TEMPLATE.replace("content'] + eos", "content'] * 2 + eos"), "changes the ass"),
        (CHAT_TEMPLATE.replace("content'] + eos", "content'] | upper + eos"), "changes the ass"),
        (CHAT_TEMPLATE.replace("content'] + eos", "content'][::-1] + eos"), "changes the ass"),
        (
            CHAT_TEMPLATE + "{% if add_generation_prompt %}{{ 'now:' }}{% endif %}",
            "another prompt once the answer is there",
        ),
    ],
)
def test_a_template_that_would_teach_something_else(
    tmp_path: Path, template: str, said: str
) -> None:
    with pytest.raises(StageError, match=said) as caught:
        render_with(tmp_path, template, user("a"), assistant("b "))
    assert caught.value.on == "row 7"


def test_rows_that_teach_nothing(renderer: Renderer) -> None:
    with pytest.raises(StageError, match="roles must alternate") as caught:
        renderer.render(chat(assistant("a"), user("b"), assistant("c")), on="row 7")
    assert caught.value.on == "row 7"
    with pytest.raises(StageError, match="teaches nothing"):
        renderer.render(chat(user("a")), on="row 7")
    with pytest.raises(StageError, match="is empty"):
        renderer.render(chat(user("a"), assistant("")), on="row 7")
    with pytest.raises(StageError, match="contains </think>"):
        renderer.render(chat(user("a"), assistant("b", "x</think>y")), on="row 7")


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
        Renderer(tmp_path, Style()).render(chat(user("a"), assistant("b")), on="row 7")


def make_texts() -> st.SearchStrategy[str]:
    """Any text that can be written as UTF-8, often with what looks like a control token."""
    some = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=8)
    spelled = st.sampled_from([*CONTROL_TOKENS, "[INST", "/INST]", "<s", ">", "<think>", "\n"])
    return st.lists(some | spelled, max_size=5).map("".join)


def make_turns() -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(make_texts(), make_texts().filter(bool)), min_size=1, max_size=4)


@given(turns=make_turns())
def test_any_conversation(renderer: Renderer, turns: list[tuple[str, str]]) -> None:
    row = chat(*(turn for asked, said in turns for turn in (user(asked), assistant(said))))
    got = renderer.render(row, on="row 7")
    pairs = [part for asked, said in turns for part in (ask(asked), answer(said))]
    assert got == join(([BOS], 0), *pairs)
    assert list(read_supervised(renderer, got)) == [said + "</s>" for _, said in turns]
    if not any(token in part for turn in turns for part in turn for token in CONTROL_TOKENS):
        messages = [vars(each) | {"tool_calls": None} for each in row.messages]
        own = renderer.tokenizer.apply_chat_template(messages, return_dict=False)
        assert got.input_ids == own


def read_supervised(renderer: Renderer, row: Rendered) -> Iterator[str]:
    """Yield the text of each supervised stretch, decoded by the tokenizer."""
    ids: list[int] = []
    for token_id, bit in zip([*row.input_ids, 0], [*row.completion_mask, 0], strict=True):
        if bit:
            ids.append(token_id)
        elif ids:
            yield renderer.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
            ids = []
