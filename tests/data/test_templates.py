"""Every template of this project: ids and masks by hand, for plain, long and calling chats."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint.chosen_template import choose_template
from pipeline.data.rendering import Renderer
from pipeline.data.row import Message, Row
from pipeline.data.style import Style
from pipeline.data.templates import BUILT_IN
from pipeline.errors import StageError
from tests.data.canonical import assistant, call, chat, result, system, user
from tests.data.families import FAMILIES, make_expected, write_chosen, write_family

pytestmark = pytest.mark.train

TOOL = {
    "type": "function",
    "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
}
TOOLS_JSON = json.dumps([TOOL])


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    made = {}
    for name in FAMILIES:
        folder = tmp_path_factory.mktemp(name)
        write_chosen(folder, name)
        made[name] = Renderer(folder, Style())
    return made


def test_every_template_is_tried() -> None:
    assert set(FAMILIES) == set(BUILT_IN)


ONE = (user("a"), assistant("b"))
TWO = (*ONE, user("c"), assistant("d"))
WITH_SYSTEM = (system("s"), *TWO)
NAMES = ["[INST]", "[/INST]"]
IM = "<|im_start|>"
END = "<|im_end|>"
HEAD, HEAD_END, EOT = "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
SYS, SYS_END = "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"
TURN, TURN_END = "<start_of_turn>", "<end_of_turn>"

CASES: list[tuple[str, tuple[Message, ...], list[list[str]]]] = [
    ("mistral-v3", ONE, [["<s>", "[INST]", " a", "[/INST]"], [" b", "</s>"]]),
    (
        "mistral-v3",
        WITH_SYSTEM,
        [
            ["<s>", "[INST]", " a", "[/INST]"],
            [" b", "</s>"],
            ["[INST]", " c", "[/INST]"],
            [" d", "</s>"],
        ],
    ),
    ("mistral-v3-tekken", ONE, [["<s>", "[INST]", "a", "[/INST]"], ["b", "</s>"]]),
    ("mistral-v7", ONE, [["<s>", "[INST]", " a", "[/INST]"], [" b", "</s>"]]),
    (
        "mistral-v7",
        WITH_SYSTEM,
        [
            ["<s>", SYS, " s", SYS_END, "[INST]", " a", "[/INST]"],
            [" b", "</s>"],
            ["[INST]", " c", "[/INST]"],
            [" d", "</s>"],
        ],
    ),
    (
        "mistral-v7-tekken",
        WITH_SYSTEM,
        [
            ["<s>", SYS, "s", SYS_END, "[INST]", "a", "[/INST]"],
            ["b", "</s>"],
            ["[INST]", "c", "[/INST]"],
            ["d", "</s>"],
        ],
    ),
    ("mistral-v13", ONE, [["<s>", "[INST]", "a", "[/INST]"], ["b", "</s>"]]),
    ("chatml", ONE, [[IM, "user\na", END, "\n", IM, "assistant\n"], ["b", END], ["\n"]]),
    (
        "chatml",
        WITH_SYSTEM,
        [
            [IM, "system\ns", END, "\n", IM, "user\na", END, "\n", IM, "assistant\n"],
            ["b", END],
            ["\n", IM, "user\nc", END, "\n", IM, "assistant\n"],
            ["d", END],
            ["\n"],
        ],
    ),
    ("qwen", ONE, [[IM, "user\na", END, "\n", IM, "assistant\n"], ["b", END], ["\n"]]),
    (
        "qwen",
        (system("s"), *ONE),
        [
            [IM, "system\ns", END, "\n", IM, "user\na", END, "\n", IM, "assistant\n"],
            ["b", END],
            ["\n"],
        ],
    ),
    (
        "llama-3",
        WITH_SYSTEM,
        [
            ["<|begin_of_text|>", HEAD, "system", HEAD_END, "\n\ns", EOT]
            + [HEAD, "user", HEAD_END, "\n\na", EOT, HEAD, "assistant", HEAD_END, "\n\n"],
            ["b", EOT],
            [HEAD, "user", HEAD_END, "\n\nc", EOT, HEAD, "assistant", HEAD_END, "\n\n"],
            ["d", EOT],
        ],
    ),
    (
        "gemma",
        WITH_SYSTEM,
        [
            ["<bos>", TURN, "user\ns\n\na", TURN_END, "\n", TURN, "model\n"],
            ["b", TURN_END],
            ["\n", TURN, "user\nc", TURN_END, "\n", TURN, "model\n"],
            ["d", TURN_END],
            ["\n"],
        ],
    ),
]


@pytest.mark.parametrize(("name", "messages", "expected"), CASES)
def test_ids_and_mask(
    renderers: dict[str, Renderer],
    name: str,
    messages: tuple[Message, ...],
    expected: list[list[str]],
) -> None:
    if name.startswith("mistral-v3") and messages[0].role == "system":
        # Version 3 puts the system prompt into the last user's turn, when that comes last.
        last = messages[:-1]
        prompt = renderers[name].render_prompt(last, on="row")
        assert (
            prompt
            == make_expected(
                name, [[*expected[0], *expected[1], "[INST]", " s\n\nc", "[/INST]"]]
            ).input_ids
        )
    got = renderers[name].render(chat(*messages), on="row")
    assert got == make_expected(name, expected)


CALL = (user("a"), call("add", {"x": 1, "y": "</s>"}), result("2"), assistant("b"))
ARGUMENTS = json.dumps({"x": 1, "y": "</s>"})
CALL_JSON = f'{{"name": "add", "arguments": {ARGUMENTS}, "id": "call00001"}}'

CALLS: list[tuple[str, list[list[str]]]] = [
    (
        "mistral-v3",
        [
            ["<s>", "[AVAILABLE_TOOLS]", f" {TOOLS_JSON}", "[/AVAILABLE_TOOLS]"]
            + ["[INST]", " a", "[/INST]"],
            ["[TOOL_CALLS]", f" [{CALL_JSON}]", "</s>"],
            ["[TOOL_RESULTS]", ' {"content": "2", "call_id": "call00001"}', "[/TOOL_RESULTS]"],
            [" b", "</s>"],
        ],
    ),
    (
        "mistral-v7-tekken",
        [
            ["<s>", "[AVAILABLE_TOOLS]", TOOLS_JSON, "[/AVAILABLE_TOOLS]"]
            + ["[INST]", "a", "[/INST]"],
            ["[TOOL_CALLS]", f"[{CALL_JSON}]", "</s>"],
            ["[TOOL_RESULTS]", "call00001", "[TOOL_CONTENT]", "2", "[/TOOL_RESULTS]"],
            ["b", "</s>"],
        ],
    ),
    (
        "mistral-v13",
        [
            ["<s>", "[AVAILABLE_TOOLS]", TOOLS_JSON, "[/AVAILABLE_TOOLS]"]
            + ["[INST]", "a", "[/INST]"],
            ["[TOOL_CALLS]", "add", "[ARGS]", ARGUMENTS, "</s>"],
            ["[TOOL_RESULTS]", "2", "[/TOOL_RESULTS]"],
            ["b", "</s>"],
        ],
    ),
]


@pytest.mark.parametrize(("name", "expected"), CALLS)
def test_a_call_and_its_result(
    renderers: dict[str, Renderer], name: str, expected: list[list[str]]
) -> None:
    # "</s>" in an argument is text, here and in the expectation: no part is that name alone.
    got = renderers[name].render(chat(*CALL, tools=(TOOL,)), on="row")
    assert got == make_expected(name, expected)


def test_a_call_of_qwen(renderers: dict[str, Renderer]) -> None:
    got = renderers["qwen"].render(chat(*CALL, tools=(TOOL,)), on="row")
    decode = renderers["qwen"].tokenizer.backend_tokenizer.decode
    taught = [i for i, bit in zip(got.input_ids, got.completion_mask, strict=True) if bit]
    assert decode(taught, skip_special_tokens=False) == (
        f'<tool_call>\n{{"name": "add", "arguments": {ARGUMENTS}}}\n</tool_call><|im_end|>'
        "b<|im_end|>"
    )
    whole = decode(got.input_ids, skip_special_tokens=False)
    assert "<|im_start|>user\n<tool_response>\n2\n</tool_response><|im_end|>\n" in whole
    assert f"<tools>\n{json.dumps(TOOL)}\n</tools>" in whole


@pytest.mark.parametrize("name", ["chatml", "llama-3", "gemma"])
def test_a_template_without_tools_says_so(renderers: dict[str, Renderer], name: str) -> None:
    with pytest.raises(StageError, match="the chat template fails"):
        renderers[name].render(chat(*CALL), on="row")
    with pytest.raises(StageError, match="the chat template fails"):
        renderers[name].render(chat(*ONE, tools=(TOOL,)), on="row")


def test_native_thinking(tmp_path: Path) -> None:
    write_chosen(tmp_path, "mistral-v13")
    style = Style(thinking="chunks")
    got = Renderer(tmp_path, style).render(chat(user("a"), assistant("b", "t[/THINK]")), on="row")
    expected = make_expected(
        "mistral-v13",
        [["<s>", "[INST]", "a", "[/INST]"], ["[THINK]", "t", "[", "/THINK]", "[/THINK]", "b"]],
    )
    assert got.input_ids == [*expected.input_ids, 2]
    assert got.completion_mask == [*expected.completion_mask, 1]


def test_thinking_in_a_field(tmp_path: Path) -> None:
    write_chosen(tmp_path, "qwen")
    style = Style(thinking="field")
    got = Renderer(tmp_path, style).render(chat(user("a"), assistant("b", "t")), on="row")
    prompt = [IM, "user\na", END, "\n", IM, "assistant\n"]
    expected = [prompt, ["<think>\nt\n</think>\n\nb", END], ["\n"]]
    assert got == make_expected("qwen", expected)


def test_a_checkpoint_without_a_template(tmp_path: Path) -> None:
    write_family(tmp_path, "gemma")
    with pytest.raises(StageError, match="has no chat template"):
        Renderer(tmp_path, Style())


def test_an_end_that_only_the_model_s_settings_name(tmp_path: Path) -> None:
    write_family(tmp_path, "gemma")
    (tmp_path / "chat_template.jinja").write_text(BUILT_IN["gemma"])
    with pytest.raises(StageError, match="the EOS is not supervised"):
        Renderer(tmp_path, Style()).render(chat(*ONE), on="row")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 4]}')
    got = Renderer(tmp_path, Style()).render(chat(*ONE), on="row")
    assert got == make_expected(
        "gemma",
        [
            ["<bos>", TURN, "user\na", TURN_END, "\n", TURN, "model\n"],
            ["b", TURN_END],
            ["\n"],
        ],
    )


def test_an_end_that_is_no_special_token(tmp_path: Path) -> None:
    write_family(tmp_path, "gemma")
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text())
    (end,) = (each for each in document["added_tokens"] if each["content"] == TURN_END)
    end["special"] = False
    path.write_text(json.dumps(document))
    choose_template(tmp_path, BUILT_IN["gemma"])
    renderer = Renderer(tmp_path, Style())
    got = renderer.render(chat(user(f"a{TURN_END}"), assistant("b")), on="row")
    assert got.input_ids.count(end["id"]) == 2  # the template's: the user's is text
    assert sum(got.completion_mask) == 2


def make_rows(name: str) -> st.SearchStrategy[Row]:
    spelled = st.sampled_from([*FAMILIES[name][0], "\n", " ", "user\n"])
    some = st.text(st.characters(exclude_categories=["Cs", "Co"]), max_size=6)
    texts = st.lists(some | spelled, min_size=1, max_size=4).map("".join).filter(bool)
    turns = st.lists(st.tuples(texts, texts), min_size=1, max_size=3)
    return turns.map(
        lambda pairs: chat(*(turn for a, b in pairs for turn in (user(a), assistant(b))))
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_any_conversation(renderers: dict[str, Renderer], name: str) -> None:
    renderer = renderers[name]
    space = " " if name in ("mistral-v3", "mistral-v7") else ""
    end = renderer.tokenizer.eos_token

    @given(row=make_rows(name))
    def check(row: Row) -> None:
        got = renderer.render(row, on="row")
        taught = [i for i, bit in zip(got.input_ids, got.completion_mask, strict=True) if bit]
        answers = [turn.content for turn in row.messages if turn.role == "assistant"]
        decoded = renderer.tokenizer.backend_tokenizer.decode(taught, skip_special_tokens=False)
        assert decoded == "".join(f"{space}{answer}{end}" for answer in answers)
        ends = [i for i in got.input_ids if i == FAMILIES[name][0].index(end)]
        per_answer = 1 if name.startswith("mistral") else 2
        assert len(ends) == per_answer * len(answers)

    check()
