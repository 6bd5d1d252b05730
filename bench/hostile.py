"""Thousands of requests of which most are not meant well -> what the server made of them.

Clients hang up before, during and after their request, send what is too large, half, no JSON, of
wrong types or with wrong keys, read a byte at a time, or ask in earnest. What may come back is
known for each; anything else is counted. Whoever asks in earnest must get, to the character, what
the model says to one who asks alone.
"""

import contextlib
import json
import queue
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from bench.clients import Answer, Sum, read_answer
from bench.servers import KEY, find_llama_server

_CLIENTS = 16
_TIMEOUT_S = 60.0
_PATH = "/v1/chat/completions"
_LONG = 20_000  # characters, far beyond a slot's context here
_HUGE = 24_000_000  # bytes of a body
_SAMPLES = 20
_IDLE_S = 30.0
IN_EARNEST = "in earnest"
_IN_EARNEST_OF_100 = 30

Send = Callable[[int, Sum], None]
"""Sends one request to a port. Raises Surprise, or what a connection raises, for what should not
be."""

Sender: TypeAlias = tuple[float, Send]
"""How often, of 100, and who sends it."""

_Waiting: TypeAlias = "queue.SimpleQueue[tuple[str, Send, Sum]]"


@dataclass
class Outcome:
    """What happened: kinds with their counts, those with something unexpected, and resident bytes
    after each part of the requests."""

    sent: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Sum, Answer]] = field(default_factory=list)
    seconds: float = 0.0
    resident_bytes: list[int] = field(default_factory=list)
    busy_after: int = -1
    is_alive: bool = False


class Surprise(Exception):  # noqa: N818 (an answer, not an error of ours)
    """The server answered what it should not have."""


class WrongAnswer(Surprise):
    """Another answer than the model gives to one who asks alone."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("a wrong answer")
        self.answer = answer


def attack(
    port: int,
    count: int,
    answers: Mapping[Sum, Answer],
    *,
    kinds: Mapping[str, Sender] | None = None,
    seed: int = 1,
) -> Outcome:
    """Send so many requests of all kinds to the llama-server of a port; return what came of them.

    `answers`: what the model says to each sum alone. Sums are asked again and again, so that slots
    and prompts are used again, too.
    """
    senders = {IN_EARNEST: (_IN_EARNEST_OF_100, make_asker(answers)), **(kinds or KINDS)}
    draw = random.Random(seed)
    drawn = draw.choices(list(senders), weights=[often for often, _ in senders.values()], k=count)
    sums = draw.choices(list(answers), k=count)
    waiting: _Waiting = queue.SimpleQueue()
    for kind, asked in zip(drawn, sums, strict=True):
        waiting.put((kind, senders[kind][1], asked))
    outcome, lock = Outcome(), threading.Lock()
    process = find_llama_server(port)
    arguments = (port, waiting, outcome, lock)
    threads = [threading.Thread(target=_run_client, args=arguments) for _ in range(_CLIENTS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    _sample(process, waiting, outcome, count)
    for thread in threads:
        thread.join()
    outcome.seconds = time.perf_counter() - started
    outcome.busy_after = _wait_until_idle(port)
    outcome.resident_bytes.append(read_resident_bytes(process))
    outcome.is_alive = read_resident_bytes(process) > 0
    return outcome


def _sample(process: int, waiting: _Waiting, outcome: Outcome, count: int) -> None:
    step = max(1, count // _SAMPLES)
    for done in range(step, count, step):
        while waiting.qsize() > count - done:
            time.sleep(0.05)
        outcome.resident_bytes.append(read_resident_bytes(process))


def read_resident_bytes(process: int) -> int:
    """Return the memory that a process has to itself or shares; 0 when it is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((each for each in text.splitlines() if each.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) * 1024


def _wait_until_idle(port: int) -> int:
    """Return how many requests are being worked on or wait, when that is none or will not be."""
    deadline = time.monotonic() + _IDLE_S
    busy = count_busy(port)
    while busy and time.monotonic() < deadline:
        time.sleep(0.1)
        busy = count_busy(port)
    return busy


def count_busy(port: int) -> int:
    """Return what /metrics says of requests that are processed or deferred."""
    _, body = exchange(port, write_request("GET", "/metrics", b""))
    lines = body.decode().splitlines()
    wanted = ("llamacpp:requests_processing ", "llamacpp:requests_deferred ")
    return sum(int(float(line.split()[1])) for line in lines if line.startswith(wanted))


def _run_client(port: int, waiting: _Waiting, outcome: Outcome, lock: threading.Lock) -> None:
    while True:
        try:
            kind, send, asked = waiting.get_nowait()
        except queue.Empty:
            return
        what, wrong = "", []
        try:
            send(port, asked)
        except WrongAnswer as error:
            wrong = [(asked, error.answer)]
        except Surprise as error:
            what = f"{kind}: {error}"
        except (OSError, ValueError, LookupError) as error:
            what = f"{kind}: {type(error).__name__}"
        with lock:
            outcome.sent[kind] += 1
            outcome.wrong += wrong
            if what:
                outcome.unexpected[what] += 1


def write_request(
    method: str, path: str, body: bytes, *, key: str = KEY, length: int | None = None
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    lines += ["Content-Type: application/json", f"Content-Length: {length or len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)


def exchange(port: int, request: bytes) -> tuple[int, bytes]:
    """Return status and body; the status alone where the server hung up after it."""
    with _connect(port) as channel:
        # A server that refuses what is too large need not read it all.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            channel.sendall(request)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := channel.recv(1 << 16):
                parts.append(part)
    head, _, body = b"".join(parts).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def require(status: int, *allowed: int) -> None:
    if status not in allowed:
        raise Surprise(f"status {status}")


def _refused(*allowed: int, **how: object) -> Send:
    """Return a client that sends a body which must be refused."""
    made = how.get("body", b"")
    key = str(how.get("key", KEY))
    body = made if isinstance(made, bytes) else json.dumps(made).encode()

    def send(port: int, asked: Sum) -> None:
        told = body or json.dumps(asked.body).encode()
        status, _ = exchange(
            port, write_request("POST", str(how.get("path", _PATH)), told, key=key)
        )
        require(status, *allowed)

    return send


def make_asker(answers: Mapping[Sum, Answer]) -> Send:
    """Return a client that asks in earnest, and knows the answer."""

    def send(port: int, asked: Sum) -> None:
        status, body = exchange(port, write_request("POST", _PATH, json.dumps(asked.body).encode()))
        require(status, 200)
        answer = read_answer(json.loads(body))
        if answer != answers[asked]:
            raise WrongAnswer(answer)

    return send


def _hang_up(port: int, asked: Sum) -> None:
    with _connect(port) as channel:
        channel.sendall(write_request("POST", _PATH, json.dumps(asked.body).encode()))


def _hang_up_mid_stream(port: int, asked: Sum) -> None:
    body = json.dumps(asked.body | {"stream": True}).encode()
    with _connect(port) as channel:
        channel.sendall(write_request("POST", _PATH, body))
        channel.recv(600)


def _send_half(port: int, asked: Sum) -> None:
    body = json.dumps(asked.body).encode()
    with _connect(port) as channel:
        channel.sendall(write_request("POST", _PATH, body[: len(body) // 2], length=len(body)))


def _read_slowly(port: int, asked: Sum) -> None:
    body = json.dumps(asked.body | {"stream": True}).encode()
    with _connect(port) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        channel.sendall(write_request("POST", _PATH, body))
        first = channel.recv(12)
        for _ in range(40):
            time.sleep(0.02)
            if not channel.recv(8):
                break
    require(int(first.split(b" ")[1]), 200)


def _send_header_bomb(port: int, asked: Sum) -> None:
    request = b"GET /health HTTP/1.1\r\n" + b"X-Long: " + b"a" * 100_000 + b"\r\n\r\n"
    status, _ = exchange(port, request)
    require(status, 400, 413, 414, 431)


_WRONG = {"messages": 5, "max_tokens": "many", "temperature": []}
_TOO_LONG = {"messages": [{"role": "user", "content": "9 " * (_LONG // 2)}]}

KINDS: Mapping[str, Sender] = {
    "hangs up at once": (10, _hang_up),
    "hangs up in the stream": (10, _hang_up_mid_stream),
    "no JSON": (10, _refused(400, 500, body=b'{"messages": [{"role": ')),
    "wrong types": (10, _refused(400, 500, body=_WRONG)),
    "wrong key": (10, _refused(401, 403, key="another")),
    "no key": (5, _refused(401, 403, key="")),
    "half a body": (5, _send_half),
    "longer than the context": (4, _refused(400, 413, body=_TOO_LONG)),
    "reads slowly": (3, _read_slowly),
    "no such route": (2, _refused(404, path="/v1/nothing")),
    "endless header": (0.9, _send_header_bomb),
    "huge body": (0.1, _refused(400, 413, 500, body=b"{" + b" " * _HUGE)),
}
