"""llama-server on a converted model: a chat becomes the ids that training saw, and it answers."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from pipeline.checkpoint import gguf, text
from pipeline.serve import gpu_check
from pipeline.serve.server import llama_server
from tests.checkpoint.tiny_base import write_base

# The model is made by the converter, so this runs in its environment, which has the server too.
pytestmark = pytest.mark.convert

MESSAGES = [{"role": "user", "content": "What is 4231 + 1787?"}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    write_base(root / "base")
    for name in ("text", "gguf"):
        (root / name).mkdir()
    text.run({"base": root / "base"}, text.Options(chat_template="", cpu_threads=1), root / "text")
    options = gguf.Options(type="BF16", model_name="Tiny", tensor_types=(), chat_template="")
    gguf.run({"base": root / "text"}, options, root / "gguf")
    return root


@pytest.fixture(scope="module")
def base_url(root: Path) -> Iterator[str]:
    gguf_path = root / "gguf" / "model.gguf"
    with llama_server(gguf_path, context=256, parallel=1, threads=1) as url:
        yield url


def post(url: str, value: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(value).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def test_a_chat_has_the_ids_of_training(root: Path, base_url: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(root / "text")
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    expected = tokenizer.encode(rendered, add_special_tokens=False)
    prompt = post(f"{base_url}/apply-template", {"messages": MESSAGES})["prompt"]
    found = post(
        f"{base_url}/tokenize", {"content": prompt, "add_special": True, "parse_special": True}
    )["tokens"]
    assert found == expected
    assert found[:2] == [1, 3]


def test_the_check_of_a_gpu_completes_and_needs_its_device(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gguf_path = str(root / "gguf" / "model.gguf")
    assert gpu_check.main([gguf_path, "none"]) == 0
    assert capsys.readouterr().out.startswith("PASS completion: ")
    assert gpu_check.main([gguf_path]) == 1
    assert 'while handling argument "--device"' in capsys.readouterr().out


def test_it_counts_the_same_prompt_and_answers(root: Path, base_url: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(root / "text")
    rendered = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    request = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0, "cache_prompt": False}
    answers = [post(f"{base_url}/v1/chat/completions", request) for _ in range(2)]
    prompt_tokens = len(tokenizer.encode(rendered, add_special_tokens=False))
    assert answers[0]["usage"]["prompt_tokens"] == prompt_tokens
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] == texts[1]
