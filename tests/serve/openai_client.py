"""What the tests of the API share: a real server, the official openai client, and what is asked."""

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai

from pipeline.serve.argv import ServerSettings
from pipeline.serve.server import run_server

ASKED: Any = [{"role": "user", "content": "What is 40 + 2?"}]
KEY = "a-key-for-tests"
_PLACE = {"type": "object", "properties": {"place": {"enum": ["Paris"]}}, "required": ["place"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "parameters": _PLACE}}


@contextmanager
def serve(gguf: Path, **changes: Any) -> Iterator[openai.OpenAI]:
    """Yield a client of a server on the file."""
    asked = {"host": "127.0.0.1", "port": 0, "context": 512, "parallel": 1, "threads": 1}
    settings = ServerSettings(**{**asked, "web_page": False, **changes})
    with ExitStack() as ending:
        url = ending.enter_context(run_server(gguf, settings))
        yield ending.enter_context(
            openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60)
        )


def fetch(client: openai.OpenAI, path: str) -> str:
    """Return what the server says at a path beside the API."""
    url = str(client.base_url).removesuffix("/v1/") + path
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read(), "utf-8")


def ask(client: openai.OpenAI, **changes: Any) -> Any:
    """Return the message that a chat is answered with."""
    return client.chat.completions.create(
        **{"model": "any", "messages": ASKED, "max_tokens": 32, "temperature": 0, **changes}
    ).choices[0].message  # fmt: skip


def render(client: openai.OpenAI, messages: Sequence[object], **more: object) -> str:
    """Return the prompt that the server makes of a conversation."""
    body = json.dumps({"messages": messages, **more}).encode()
    url = str(client.base_url).removesuffix("/v1/") + "/apply-template"
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return str(json.load(answer)["prompt"])
