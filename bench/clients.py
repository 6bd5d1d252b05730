"""Clients side by side that ask sums of a server, each over one connection: tokens per second.

Every answer is checked: a fast server that is wrong is no faster.
"""

import http.client
import json
import queue
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bench.servers import KEY
from pipeline.evaluate.grade import is_correct

_MAX_TOKENS = 48  # an answer of the demonstration has 46; random weights never end
_TIMEOUT_S = 120.0
NO_OPTIONS: Mapping[str, object] = MappingProxyType({})
HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@dataclass(frozen=True)
class Sum:
    """A problem of the demonstration's model, and its solution."""

    first: int
    second: int

    @property
    def body(self) -> dict[str, object]:
        """What is asked."""
        return {
            "model": "any",
            "messages": [{"role": "user", "content": f"What is {self.first} + {self.second}?"}],
            "max_tokens": _MAX_TOKENS,
            "temperature": 0,
        }

    def is_right(self, content: str) -> bool:
        """Return whether an answer is."""
        return is_correct(content, str(self.first + self.second))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All that a server said: what it split off as thinking, the rest, and their tokens."""

    thinking: str
    content: str
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a number of clients got of one server."""

    seconds: float
    tokens: int
    right: int
    failed: int
    requests: int
    latencies_s: tuple[float, ...]

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def make_sums(count: int, seed: int = 1) -> list[Sum]:
    """Return sums of four digits."""
    draw = random.Random(seed)
    return [Sum(draw.randint(1000, 4999), draw.randint(1000, 4999)) for _ in range(count)]


def ask(
    connection: http.client.HTTPConnection, asked: Sum, options: Mapping[str, object] = NO_OPTIONS
) -> Answer:
    """Return the answer. Raises OSError, ValueError or KeyError for what is none."""
    body = json.dumps({**asked.body, **options})
    connection.request("POST", "/v1/chat/completions", body, HEADERS)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    if answer.status != 200:
        raise ValueError(f"status {answer.status}: {told}")
    return read_answer(told)


def read_answer(told: Mapping[str, Any]) -> Answer:
    """Return what the body of a completion says. Raises KeyError or IndexError for none."""
    message = told["choices"][0]["message"]
    return Answer(
        thinking=message.get("reasoning_content") or "",
        content=message.get("content") or "",
        tokens=int(told["usage"]["completion_tokens"]),
    )


def measure(
    port: int, sums: Sequence[Sum], clients: int, options: Mapping[str, object] = NO_OPTIONS
) -> Load:
    """Ask all the sums by so many clients.

    At the end some clients wait for others: at every server alike.
    """
    waiting: queue.SimpleQueue[Sum] = queue.SimpleQueue()
    for each in sums:
        waiting.put(each)
    found: queue.SimpleQueue[tuple[float, int, bool]] = queue.SimpleQueue()
    threads = [
        threading.Thread(target=_run_client, args=(port, waiting, found, options))
        for _ in range(clients)
    ]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    answers = [found.get_nowait() for _ in range(found.qsize())]
    return Load(
        seconds=seconds,
        tokens=sum(tokens for _, tokens, _ in answers),
        right=sum(right for _, _, right in answers),
        failed=len(sums) - len(answers),
        requests=len(sums),
        latencies_s=tuple(latency for latency, _, _ in answers),
    )


def _run_client(
    port: int,
    waiting: "queue.SimpleQueue[Sum]",
    found: "queue.SimpleQueue[tuple[float, int, bool]]",
    options: Mapping[str, object],
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    while True:
        try:
            asked = waiting.get_nowait()
        except queue.Empty:
            break
        started = time.perf_counter()
        try:
            answer = ask(connection, asked, options)
        except (OSError, ValueError, LookupError, http.client.HTTPException):
            connection.close()
            continue
        taken_s = time.perf_counter() - started
        found.put((taken_s, answer.tokens, asked.is_right(answer.content)))
    connection.close()
