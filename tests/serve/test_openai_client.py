"""The API as its users meet it: the official openai client, on a real server and a real model whose
words are known."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from pipeline.serve.gguf_file import read_gguf
from pipeline.serve.thinking import fold_thinking
from tests.serve.openai_client import ASKED, KEY, WEATHER, ask, fetch, render, serve
from tests.serve.scripted_gguf import ASSISTANT, Script, write_adapter, write_model

pytestmark = pytest.mark.serve

_THINKING = Script(pieces=["<think>", "\nForty ", "and two.", "\n</think>", "\n4", "2"])


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of the server as `make serve` starts it: thinking split off, a key, four slots."""
    folder = tmp_path_factory.mktemp("thinking")
    gguf = write_model(folder / "model.gguf", _THINKING)
    template, keys = folder / "template.jinja", folder / "keys"
    template.write_text(fold_thinking(read_gguf(gguf).chat_template))
    keys.write_text(f"# ours\n\n{KEY}\nanother\n")
    with serve(
        gguf,
        parallel=4,
        template=str(template),
        splits_thinking=True,
        api_key_file=str(keys),
        cache_type="q8_0",
        metrics=True,
        alias="scripted",
        prompt_cache_mib=16,
    ) as client:
        yield client


def test_thinking_comes_apart_from_the_answer(thinking: openai.OpenAI) -> None:
    message = ask(thinking)
    assert message.content == "42"
    assert message.reasoning_content.strip() == "Forty and two."


def test_a_stream_ends_as_the_whole_answer(thinking: openai.OpenAI) -> None:
    stream = thinking.chat.completions.create(
        model="any", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(each.content or "" for each in deltas) == "42"
    reasoning = "".join(getattr(each, "reasoning_content", None) or "" for each in deltas)
    assert reasoning.strip() == "Forty and two."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len(_THINKING.pieces) + 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


def test_what_was_thought_before_is_rendered_as_it_was_taught(thinking: openai.OpenAI) -> None:
    before = {"role": "assistant", "content": "3", "reasoning_content": "One and two."}
    prompt = render(thinking, [*ASKED, before, *ASKED])
    assert "[assistant]<think>\nOne and two.\n</think>\n3[user]" in prompt


def test_a_text_is_completed_as_it_is(thinking: openai.OpenAI) -> None:
    answer = thinking.completions.create(model="any", prompt=ASSISTANT, max_tokens=32)
    assert answer.choices[0].text == "".join(_THINKING.pieces)
    short = thinking.completions.create(model="any", prompt=ASSISTANT, max_tokens=2)
    assert short.choices[0].text == "<think>\nForty "
    assert short.choices[0].finish_reason == "length"


def test_the_model_has_the_recipes_name(thinking: openai.OpenAI) -> None:
    (model,) = thinking.models.list().data
    assert model.id == "scripted"


def test_a_schema_is_kept_whatever_the_model_would_say(thinking: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"unit": {"enum": ["metre"]}, "exact": {"type": "boolean"}},
        "required": ["unit", "exact"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "length", "schema": schema}}
    said = json.loads(ask(thinking, response_format=form, max_tokens=128).content)
    assert said["unit"] == "metre"
    assert isinstance(said["exact"], bool)


def test_a_grammar_is_kept(thinking: openai.OpenAI) -> None:
    said = ask(thinking, extra_body={"grammar": 'root ::= "yes" | "no"'})
    assert said.content in ("yes", "no")


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of a server whose model thinks, and then calls a tool."""
    folder = tmp_path_factory.mktemp("calling")
    call = [
        "<tool_call>",
        '\n{"name": "weather", ',
        '"arguments": {"place": "Paris"}',
        "}\n</tool_call>",
    ]
    script = Script(pieces=["<think>", "\nI look.", "\n</think>\n", *call])
    gguf = write_model(folder / "model.gguf", script)
    template = folder / "template.jinja"
    template.write_text(fold_thinking(script.template))
    with serve(gguf, template=str(template), splits_thinking=True, context=1024) as client:
        yield client


@pytest.mark.parametrize("choice", ["auto", "required"])
def test_a_tool_is_called_after_thinking(calling: openai.OpenAI, choice: str) -> None:
    message = ask(calling, tools=[WEATHER], tool_choice=choice, max_tokens=256)
    (call,) = message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"place": "Paris"}
    assert message.reasoning_content.strip() == "I look."
    assert not message.content


def test_a_tools_result_goes_back(calling: openai.OpenAI) -> None:
    message = ask(calling, tools=[WEATHER], max_tokens=256)
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    turns = [*ASKED, message.model_dump(exclude_none=True), result]
    assert ask(calling, messages=turns, tools=[WEATHER], max_tokens=256).tool_calls


def test_slots_answer_side_by_side_without_mixing(thinking: openai.OpenAI) -> None:
    def answer(number: int) -> Any:
        return ask(thinking, messages=[{"role": "user", "content": f"{number} " * (number % 40)}])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(answer, range(40)))
    assert {each.content for each in answers} == {"42"}
    assert "llamacpp:requests_processing 0" in fetch(thinking, "/metrics")


@pytest.mark.parametrize("key", ["wrong", "", "# ours", f"{KEY} "])
def test_without_a_key_of_the_file_nobody_is_let_in(thinking: openai.OpenAI, key: str) -> None:
    stranger = thinking.with_options(api_key=key or " ")
    with pytest.raises((openai.AuthenticationError, openai.APIConnectionError)):
        stranger.models.list()


def test_a_prompt_longer_than_a_slot_is_refused_and_the_slot_lives(thinking: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="exceed"):
        ask(thinking, messages=[{"role": "user", "content": "long " * 512}])
    assert ask(thinking).content == "42"


def test_a_client_that_leaves_leaves_no_slot_behind(tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "model.gguf", Script(pieces=["on ", "and "], endless=True))
    with serve(gguf, context=4096, metrics=True) as client:
        for _ in range(4):
            with client.chat.completions.create(
                model="any", messages=ASKED, stream=True, max_tokens=4000
            ) as stream:
                next(iter(stream))
        assert ask(client, max_tokens=4).content == "on and on and "


def test_adapters_are_chosen_by_each_request(tmp_path: Path) -> None:
    base = Script(pieces=["plain", "loud", "quiet"])
    gguf = write_model(tmp_path / "model.gguf", base)
    changes = {"loud": {ASSISTANT: "loud"}, "quiet": {ASSISTANT: "quiet"}}
    adapters = [write_adapter(tmp_path / f"{n}.gguf", base, c) for n, c in changes.items()]
    with serve(gguf, adapters=tuple(map(str, adapters))) as client:

        def say(*chosen: int) -> str:
            body = {"lora": [{"id": number, "scale": 1.0} for number in chosen]}
            return str(ask(client, extra_body=body if chosen else {}).content)

        expected = {(): "plainloudquiet", (0,): "loudquiet", (1,): "quiet"}
        for chosen in [(), (0,), (1,), (), (1,), (0,)]:
            assert say(*chosen) == expected[chosen]
