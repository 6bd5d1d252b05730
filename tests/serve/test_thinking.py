"""Thinking and tool calls come apart whatever family's template a file has: a real server, a real
model whose words are known."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.data.templates import BUILT_IN
from pipeline.serve.thinking import fold_thinking
from tests.serve.openai_client import ASKED, WEATHER, ask, render, serve
from tests.serve.scripted_gguf import Script, end_with_assistant, write_model

pytestmark = pytest.mark.serve

_THOUGHT, _TURN = "<think>\nOne and two.\n</think>\n", {"role": "assistant", "content": "3"}
# Calls as Qwen3-Coder writes them.
_XML = """\
{%- if tools %}{{ tools | tojson }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + (message.content or '') }}
    {%- for call in message.tool_calls or [] %}
        {{- '<tool_call>\n<function=' + call.function.name + '>\n' }}
        {%- for name, value in call.function.arguments | items %}
            {{- '<parameter=' + name + '>\n' + value + '\n</parameter>\n' }}
        {%- endfor %}
        {{- '</function>\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""
# Templates that others published, and llama.cpp's source carries, of models that do not think.
_FOLDER = Path(sys.prefix) / "llama" / "src" / "models" / "templates"
_PUBLISHED = (
    *("Mistral-Small-3.2-24B-Instruct-2506", "mistralai-Mistral-Nemo-Instruct-2407"),
    *("Qwen-Qwen2.5-7B-Instruct", "Qwen3-Coder", "google-gemma-2-2b-it"),
    *("meta-llama-Llama-3.3-70B-Instruct", "microsoft-Phi-3.5-mini-instruct"),
    "unsloth-mistral-Devstral-Small-2507",
)
_CALLS = {
    "mistral-v13": (
        BUILT_IN["mistral-v13"],
        ["[TOOL_CALLS]", "weather", "[ARGS]", '{"place": ', '"Paris"', "}"],
    ),
    "xml": (
        _XML,
        ["<tool_call>\n", "<function=weather>", "\n<parameter=place>\n", "Paris"]
        + ["\n</parameter>", "\n</function>", "\n</tool_call>"],
    ),
}


def read(family: str) -> str:
    """Return the chat template of that name."""
    published = _FOLDER / f"{family}.jinja"
    return BUILT_IN[family] if family in BUILT_IN else published.read_text(encoding="utf-8")


def write(folder: Path, template: str, pieces: list[str]) -> tuple[Path, Path]:
    """Return the paths of a model that says so, and of the template that it is served with."""
    ended = end_with_assistant(template)
    path = folder / "template.jinja"
    path.write_text(fold_thinking(ended))
    script = Script(pieces=pieces, template=ended, context=16384)
    return write_model(folder / "model.gguf", script), path


@pytest.mark.parametrize("family", [*BUILT_IN, *_PUBLISHED])
def test_thinking_comes_apart_under_every_familys_template(tmp_path: Path, family: str) -> None:
    pieces = ["<think>", "\nForty ", "and two.", "\n</think>", "\n4", "2"]
    gguf, template = write(tmp_path, read(family), pieces)
    # Some write a system prompt of thousands of characters where there is none.
    with serve(gguf, template=str(template), splits_thinking=True, context=16384) as client:
        message = ask(client)
        assert (message.reasoning_content.strip(), message.content) == ("Forty and two.", "42")
        if "reasoning_content" not in read(family):
            apart = [*ASKED, {**_TURN, "reasoning_content": "One and two."}, *ASKED]
            taught = [*ASKED, {**_TURN, "content": f"{_THOUGHT}3"}, *ASKED]
            assert _THOUGHT in render(client, taught)
            assert render(client, apart) == render(client, taught)


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("written", _CALLS)
def test_tools_are_called_as_the_family_writes_calls(
    tmp_path: Path, written: str, choice: str
) -> None:
    source, call_pieces = _CALLS[written]
    gguf, template = write(tmp_path, source, ["<think>", "\nI look.", "\n</think>\n", *call_pieces])
    with serve(gguf, template=str(template), splits_thinking=True, context=4096) as client:
        message = ask(client, tools=[WEATHER], tool_choice=choice, max_tokens=256)
        (call,) = message.tool_calls
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"place": "Paris"}
        assert (message.reasoning_content.strip(), message.content or "") == ("I look.", "")
        result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        turns = [*ASKED, message.model_dump(exclude_none=True), result]
        prompt = render(client, turns, tools=[WEATHER])
        assert "".join(["<think>\nI look.\n</think>\n", *call_pieces]) in prompt
