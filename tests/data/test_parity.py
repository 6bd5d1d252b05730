"""What is trained is what is served: llama.cpp's own rendering and ids of the same chats.

The server answers with the template and the vocabulary that its GGUF carries. Chats whose texts
spell control tokens are left out: there the server reads control tokens, and training text.
"""

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.checkpoint import gguf
from pipeline.checkpoint.weights import write_small_files
from pipeline.data.rendering import Renderer
from pipeline.data.row import Message
from pipeline.data.style import Style
from pipeline.data.templates import BUILT_IN
from pipeline.demo.tokenizer import CONTROL_TOKENS, make_tokenizer, write_tokenizer
from pipeline.serve.server import llama_server
from tests.checkpoint.tiny_base import write_base
from tests.data.canonical import assistant, call, result, system, user

# The model is made by the converter, so this runs in its environment, which has the server too.
pytestmark = pytest.mark.convert

TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"x": {"type": "number"}}},
    },
}
WITH_TOOLS = ("mistral-v3-tekken", "mistral-v7-tekken", "mistral-v13", "qwen")

# Control tokens of the other families, in place of the demonstration's unused ones.
NAMES = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>"),
)


@dataclass(frozen=True, kw_only=True)
class Served:
    """A checkpoint with one template, and the server of its GGUF."""

    name: str
    url: str
    renderer: Renderer


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("parity") / "base"
    write_base(folder)
    return folder


@pytest.fixture(scope="module", params=["own", *BUILT_IN])
def served(
    request: pytest.FixtureRequest, base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    name = request.param
    out: Path = tmp_path_factory.mktemp(name)
    write_tokenizer(base, make_named_tokenizer())
    chosen = BUILT_IN.get(name, "")
    options = gguf.Options(type="Q8_0", model_name="Tiny", tensor_types=(), chat_template=chosen)
    gguf.run({"base": base}, options, out)
    write_small_files(base, out, chosen)
    renderer = Renderer(out, Style())
    with llama_server(out / gguf.GGUF, context=256, parallel=1, threads=1) as url:
        yield Served(name=name, url=url, renderer=renderer)


def make_named_tokenizer() -> Tokenizer:
    text = make_tokenizer().to_str()
    for number, name in enumerate(NAMES, start=40):
        assert f'"<SPECIAL_{number}>"' in text
        text = text.replace(f'"<SPECIAL_{number}>"', json.dumps(name))
    return Tokenizer.from_str(text)


def post(url: str, value: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(value).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def ask_server(
    served: Served, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> list[int]:
    """Return the ids that the server would complete."""
    asked = {"messages": messages} | ({"tools": tools} if tools else {})
    prompt = post(f"{served.url}/apply-template", asked)["prompt"]
    text = {"content": prompt, "add_special": True, "parse_special": True}
    return [int(each) for each in post(f"{served.url}/tokenize", text)["tokens"]]


def make_request(turn: Message) -> dict[str, Any]:
    """Return the turn as a client of the OpenAI API writes it."""
    made: dict[str, Any] = {"role": turn.role, "content": turn.content}
    if turn.tool_calls:
        made["tool_calls"] = [
            {
                "id": each.id,
                "type": "function",
                "function": {"name": each.name, "arguments": json.dumps(each.arguments)},
            }
            for each in turn.tool_calls
        ]
    if turn.tool_call_id:
        made["tool_call_id"] = turn.tool_call_id
    return made


def check(served: Served, *turns: Message, tools: list[dict[str, Any]] | None = None) -> None:
    expected = served.renderer.render_prompt(turns, tools or [], on="chat")
    assert ask_server(served, list(map(make_request, turns)), tools or []) == expected


def test_one_question(served: Served) -> None:
    check(served, user("What is 4231 + 1787?"))


def test_a_conversation(served: Served) -> None:
    if served.name != "own":
        check(served, system("Be brief."), user("wie heißt 水?"), assistant("水\n"), user(" b "))
    check(served, user("a"), assistant("<think>\n1\n</think>\nb"), user("c"))


def test_tools(served: Served) -> None:
    if served.name in WITH_TOOLS:
        turns = (user("a"), call("add", {"x": 1, "y": "é"}), result("2"))
        check(served, *turns, tools=[TOOL])


def make_texts() -> st.SearchStrategy[str]:
    some = st.text(st.characters(exclude_categories=["Cs", "Co", "Cc", "M"]), max_size=12)
    texts = st.lists(some | st.sampled_from(["\n", " ", "```"]), min_size=1, max_size=4)
    known = (*CONTROL_TOKENS.values(), *NAMES)
    return texts.map("".join).filter(lambda t: t and not any(each in t for each in known))


def test_any_chat(served: Served) -> None:
    @settings(max_examples=30)
    @given(turns=st.lists(make_texts(), min_size=1, max_size=5).filter(lambda t: len(t) % 2))
    def try_one(turns: list[str]) -> None:
        made = [user(t) if n % 2 == 0 else assistant(t) for n, t in enumerate(turns)]
        check(served, *made)

    try_one()
