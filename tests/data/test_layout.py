"""A row whose layout is known gets what it gets by the marks of its characters, or they decide."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.layout import FIRST, Layouts
from pipeline.data.rendering import Rendered, Renderer
from pipeline.data.row import Message, Row
from pipeline.data.style import Style
from pipeline.data.tracking import TEMPLATE, UNKNOWN, Tracked, join, track
from pipeline.errors import StageError
from tests.data.canonical import assistant, call, chat, result, system, user
from tests.data.families import FAMILIES, write_chosen
from tests.tiny_text import CHAT_TEMPLATE, write_tokenizer

pytestmark = pytest.mark.train

USER = "'[INST]' + message['content'] + '[/INST]'"
ANSWER = "message['content'] + eos_token"

# What templates do to texts; each gives another text for some row.
ODD = {
    "trims the user": (USER, "'[INST]' + message['content'] | trim + '[/INST]'"),
    "trims, and puts a space": (USER, "'[INST]' + message['content'].strip() + ' [/INST]'"),
    "no second blank line": (
        USER,
        "'[INST]' + message['content'] + ('' if message['content'][-1:] == '\\n' else '\\n')"
        " + '[/INST]'",
    ),
    "speaks like the user": (USER, "'[INST]a' + message['content'] + 'a[/INST]'"),
    "says it twice": (USER, "'[INST]' + message['content'] * 2 + '[/INST]'"),
    "shouts": (USER, "'[INST]' + message['content'] | upper + '[/INST]'"),
    "drops earlier answers' thinking": (
        ANSWER,
        "(message['content'] if loop.last else message['content'].split('</think>')[-1])"
        " + eos_token",
    ),
    "no end after b": (
        ANSWER,
        "message['content'] + ('' if 'b' in message['content'] else '</s>')",
    ),
    "asks differently": (
        "{%- endfor %}",
        "{%- endfor %}{% if add_generation_prompt and 'b' in messages[-1].content %}b{% endif %}",
    ),
    "ends for silence": (
        USER,
        "'[INST]' + (message['content'] if message['content'].strip() else '</s>') + '[/INST]'",
    ),
    "a space before the answer": (
        "{%- endfor %}",
        "{%- if message['role'] == 'user' %}{{ ' ' }}{% endif %}{%- endfor %}",
    ),
}
PIECES = ["[INST]", "[/INST]", "</s>", "user\n", "<|im_start|>", "<think>\n", "\n</think>\n"]


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    """One for each family's template and for each odd one."""
    made = {}
    for name in FAMILIES:
        folder = tmp_path_factory.mktemp(name)
        write_chosen(folder, name)
        made[name] = Renderer(folder, Style())
    for name, (old, new) in ODD.items():
        assert old in CHAT_TEMPLATE
        folder = tmp_path_factory.mktemp("odd")
        write_tokenizer(folder, CHAT_TEMPLATE.replace(old, new))
        made[name] = Renderer(folder, Style())
    return made


def make_texts() -> st.SearchStrategy[str]:
    """Few letters, so that one text is often in another; blanks; what templates write."""
    return st.lists(st.sampled_from(["a", "b", " ", "\n", "é", *PIECES]), max_size=4).map("".join)


def make_rows() -> st.SearchStrategy[Row]:
    pairs = st.lists(
        st.tuples(make_texts(), make_texts(), st.none() | st.sampled_from("ab")), max_size=3
    )
    rows = st.tuples(st.none() | make_texts(), pairs.filter(bool))
    return rows.map(
        lambda made: chat(
            *([] if made[0] is None else [system(made[0])]),
            *(
                turn
                for asked, said, thought in made[1]
                for turn in (user(asked), assistant(said, thought))
            ),
        )
    )


def render(renderer: Renderer, row: Row) -> Rendered | tuple[str, str, str, str]:
    try:
        return renderer.render(row, on="row 7")
    except StageError as error:
        return error.what, error.on, error.why, error.then


@pytest.mark.parametrize("name", [*FAMILIES, *ODD])
def test_known_and_marked_rows_are_the_same(renderers: dict[str, Renderer], name: str) -> None:
    renderer, known = renderers[name], Layouts()

    @given(row=make_rows())
    def check(row: Row) -> None:
        renderer.layouts = Layouts()
        marked = render(renderer, row)
        renderer.layouts = known  # of all the rows before
        assert render(renderer, row) == marked
        assert render(renderer, row) == marked  # now that it has been learnt of this very row

    check()


@pytest.mark.parametrize("name", FAMILIES)
def test_characters_are_marked_once_for_a_shape(
    renderers: dict[str, Renderer], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer, marks = renderers[name], list[Any]()
    own = renderer.template.render

    def render_marked(*arguments: Any, **named: Any) -> Tracked:
        marks.append(arguments)
        return own(*arguments, **named)

    def count_marks(*turns: Message) -> int:
        marks.clear()
        render(renderer, chat(*turns))
        return len(marks)

    monkeypatch.setattr(renderer.template, "render", render_marked)

    renderer.layouts.forget()
    assert count_marks(user("What is 1 + 2?"), assistant("three", "one, two, three")) == 1
    assert count_marks(user("Why?"), assistant("Because.", "Hm.")) == 0
    assert count_marks(user("Why?"), assistant("Because."), user("And?"), assistant("So.")) == 1
    assert count_marks(user("Who?"), assistant("Mr. X."), user("Or?"), assistant("Ms. Y.")) == 0
    # What a text spells, what stands there twice, what is called: the marks tell, each time.
    spelled = (user(f"Why{renderer.tokenizer.eos_token}"), assistant("Because."))
    same = (user("Because."), assistant("Because."))
    called = (user("What?"), call("add", {"x": 1}), result("2"), assistant("b"))
    for turns in (spelled, same, *([called] if name.startswith("mistral") else [])):
        assert [count_marks(*turns) > 0 for _ in range(2)] == [True, True]


def lay_out(*texts: str, rendered: str) -> Tracked | None:
    """Learn "<A>B", A the user's and B the assistant's, then lay another rendering out."""
    layouts = Layouts()
    first = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    layouts.learn(first, join("", ["<", track("A", FIRST), ">", track("B", FIRST + 2)]))
    roles = ("user", "assistant")
    messages = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
    return layouts.lay_out(messages, rendered)


def test_a_layout() -> None:
    found = lay_out("ab", "c", rendered="<ab>c")
    assert found is not None
    assert found.runs == ((1, TEMPLATE), (2, FIRST), (1, TEMPLATE), (1, FIRST + 2))
    assert found == "<ab>c"


@pytest.mark.parametrize(
    ("question", "answer", "rendered"),
    [
        ("ab", "c", "<ab>c."),
        ("ab", "c", ".<ab>c"),
        ("ab", "c", "<ab> c"),
        ("ab", "c", "<ab>"),
        ("ab ", "c", "<ab>c"),
        ("ab", "ab", "<ab>ab"),
        ("b", "abc", "<b>abc"),
        ("<", "c", "<<>c"),
        (">", "c", "<>>c"),
        ("aa", "aaa", "<aa>aaa"),
        ("", "c", "<>c"),
    ],
)
def test_doubt_about_a_layout(question: str, answer: str, rendered: str) -> None:
    assert lay_out(question, answer, rendered=rendered) is None


def test_a_text_that_was_left_out_once_and_is_written_now(renderers: dict[str, Renderer]) -> None:
    renderer = renderers["ends for silence"]
    spelled = chat(user("</s>"), assistant("b"))
    renderer.layouts = Layouts()
    marked = render(renderer, spelled)
    renderer.layouts = Layouts()
    silent = render(renderer, chat(user(" "), assistant("b")))
    assert render(renderer, spelled) == marked != silent


@pytest.mark.parametrize(
    "marked",
    [
        Tracked("<A>B", [(4, UNKNOWN)]),
        join("", ["<", track("A", FIRST + 1), ">", track("B", FIRST + 2)]),
        join("", ["<", track("A!", FIRST), ">", track("B", FIRST + 2)]),
        join("", ["<", track("A", 1), ">", track("B", FIRST + 2)]),
    ],
)
def test_what_is_no_layout(marked: Tracked) -> None:
    messages = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    layouts = Layouts()
    layouts.learn(messages, marked)
    assert layouts.lay_out(messages, str.__str__(marked)) is None
