"""Two real servers behind a real HAProxy: traffic moves between them, and no request fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from bench.hostile import exchange, write_request
from pipeline.artifact.key import REPOSITORY
from pipeline.engine.compose import write_directories
from pipeline.errors import HostError, StageError
from pipeline.serve.access import find_free_port
from pipeline.serve.argv import ServerSettings
from pipeline.serve.balancer import (
    BODY_BYTES,
    Balancer,
    ask,
    make_configuration,
    read_shares,
    set_canary_share,
)
from pipeline.serve.server import run_server
from tests.serve.scripted_gguf import Script, write_model

pytestmark = pytest.mark.serve

_READY_S = 30.0
_CLIENTS = 4
_PATH = "/v1/chat/completions"
_PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin")


class Balanced:
    """A balancer that runs, and clients that ask through it."""

    def __init__(self, url: str, figures: str, socket: Path, log: Path) -> None:
        self.url = url
        self.figures = figures
        self.socket = socket
        self.log = log
        # When each request began, and who answered it.
        self.answers: list[tuple[float, str]] = []
        self.failures: list[str] = []

    def ask_once(self) -> str:
        body = {"messages": [{"role": "user", "content": "who?"}], "max_tokens": 8}
        headers = {"Content-Type": "application/json"}
        url = f"{self.url}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            said = json.load(answer)["choices"][0]["message"]["content"]
            assert said == answer.headers["x-served-by"]
            return str(said)

    def ask_until(self, over: threading.Event) -> None:
        while not over.is_set():
            began_s = time.monotonic()
            try:
                self.answers.append((began_s, self.ask_once()))
            except Exception as error:  # noqa: BLE001 - every failure is what is looked for
                self.failures.append(repr(error))

    def wait_for(self, count: int) -> Counter[str]:
        """Return who answered that many of the requests that begin now."""
        now_s = time.monotonic()
        found: list[str] = []
        while len(found) < count and time.monotonic() < now_s + _READY_S:
            time.sleep(0.01)
            found = [name for began_s, name in list(self.answers) if began_s >= now_s]
        return Counter(found)


@contextmanager
def balance(folder: Path, certificate: str = "") -> Iterator[Balanced]:
    """Yield a balancer before two servers that say their names."""
    if _PROGRAM is None:
        pytest.skip("no haproxy: apt-get install haproxy")
    settings = ServerSettings(
        host="127.0.0.1", port=0, context=256, parallel=2, threads=1, web_page=False
    )
    with ExitStack() as ending:
        # HAProxy takes a path of at most 97 bytes.
        short = Path(ending.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        servers = {}
        for name in ("stable", "canary"):
            gguf = write_model(folder / f"{name}.gguf", Script(pieces=[name]))
            servers[name] = ending.enter_context(run_server(gguf, settings)).removeprefix("http://")
        port = find_free_port("127.0.0.1", 31_000)
        figures = find_free_port("127.0.0.1", port)
        balancer = Balancer(
            listen=f"127.0.0.1:{port}",
            figures=f"127.0.0.1:{figures}",
            socket=str(short / "socket"),
            servers=servers,
            certificate=certificate,
        )
        configuration = folder / "haproxy.cfg"
        configuration.write_text(make_configuration(balancer))
        log = ending.enter_context((folder / "haproxy.log").open("wb"))
        process = subprocess.Popen([_PROGRAM, "-f", str(configuration)], stderr=log)
        ending.callback(process.wait)
        ending.callback(process.terminate)
        scheme = "https" if certificate else "http"
        url = f"{scheme}://127.0.0.1:{port}"
        made = Balanced(
            url, f"http://127.0.0.1:{figures}", short / "socket", folder / "haproxy.log"
        )
        _wait_until_up(made.socket)
        yield made


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    with balance(tmp_path_factory.mktemp("balanced")) as made:
        yield made


def _wait_until_up(socket: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            if {state for _, state in read_shares(socket).values()} == {"UP"}:
                return
        except HostError:
            pass
        time.sleep(0.05)
    raise AssertionError("the balancer is not up")


def test_no_request_fails_while_traffic_moves(balanced: Balanced) -> None:
    over = threading.Event()
    threads = [threading.Thread(target=balanced.ask_until, args=(over,)) for _ in range(_CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        assert balanced.wait_for(20).keys() == {"stable"}
        set_canary_share(balanced.socket, 25)
        shared = balanced.wait_for(200)
        set_canary_share(balanced.socket, 100)
        assert balanced.wait_for(20).keys() == {"canary"}
        set_canary_share(balanced.socket, 0)
        assert balanced.wait_for(20).keys() == {"stable"}
        for share in (100, 0) * 100:
            set_canary_share(balanced.socket, share)
        balanced.wait_for(20)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert balanced.failures == []
    assert "no server available" not in balanced.log.read_text(), "even for a moment"
    assert 0.2 < shared["canary"] / shared.total() < 0.3, shared


def _run_traffic(*words: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "pipeline", "traffic", *words]
    return subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True)


def test_the_command_changes_the_shares_and_shows_them(balanced: Balanced, tmp_path: Path) -> None:
    told = _run_traffic("30", "--socket", str(balanced.socket))
    assert (told.returncode, told.stderr) == (0, "")
    assert [line.split() for line in told.stdout.splitlines()[2:]] == [
        ["stable", "70", "%", "UP"],
        ["canary", "30", "%", "UP"],
    ]
    assert read_shares(balanced.socket) == {"stable": (70, "UP"), "canary": (30, "UP")}
    assert _run_traffic("0", "--socket", str(balanced.socket)).returncode == 0
    assert read_shares(balanced.socket)["canary"] == (0, "UP")
    assert _run_traffic("101", "--socket", str(balanced.socket)).returncode == 2
    assert _run_traffic("--socket", str(tmp_path / "none")).returncode == 3


def test_its_figures_are_for_prometheus_alone(balanced: Balanced) -> None:
    with urllib.request.urlopen(f"{balanced.figures}/metrics", timeout=30) as answer:
        assert b"haproxy_server_http_responses_total" in answer.read()
    with pytest.raises(OSError, match="404"):
        urllib.request.urlopen(f"{balanced.url}/metrics", timeout=30)


def _make_body(size: int) -> bytes:
    """Return a request of so many bytes; what makes it long is no part of the prompt."""
    body = json.dumps({"messages": [{"role": "user", "content": "who?"}], "max_tokens": 8}).encode()
    return body + b" " * (size - len(body))


def _post(balanced: Balanced, request: bytes) -> tuple[int, dict[str, Any]]:
    status, body = exchange(int(balanced.url.rpartition(":")[2]), request)
    return status, json.loads(body)


def _refuse(balanced: Balanced) -> tuple[int, str | None]:
    """Return the status and the code that the official client gets for far too long a prompt."""
    client = openai.OpenAI(base_url=f"{balanced.url}/v1", api_key="none", max_retries=0)
    message: ChatCompletionUserMessageParam = {"role": "user", "content": "9 " * BODY_BYTES}
    with pytest.raises(openai.APIStatusError, match="larger than") as caught:
        client.chat.completions.create(model="any", messages=[message])
    return caught.value.status_code, caught.value.code


def test_a_body_larger_than_any_context_is_refused_with_a_reason(balanced: Balanced) -> None:
    assert _post(balanced, write_request("POST", _PATH, _make_body(BODY_BYTES)))[0] == 200
    status, told = _post(balanced, write_request("POST", _PATH, _make_body(BODY_BYTES + 1)))
    assert status == 413
    assert told["error"] == {
        "message": f"the request is larger than {BODY_BYTES} bytes",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_too_large",
    }
    for _ in range(5):
        assert _refuse(balanced) == (413, "request_too_large")
        assert balanced.ask_once() == "stable"


def test_a_body_of_unknown_length_is_refused(balanced: Balanced) -> None:
    head = f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    for request in (chunked + b"3e8\r\n" + _make_body(1000) + b"\r\n0\r\n\r\n", chunked):
        status, told = _post(balanced, request)
        assert (status, told["error"]["code"]) == (411, "length_required")
    assert balanced.ask_once() == "stable"


def test_what_it_does_not_take_is_an_error(balanced: Balanced, tmp_path: Path) -> None:
    assert "Unknown command" in ask(balanced.socket, "no such command")
    with pytest.raises(StageError, match="new shares"):
        set_canary_share(balanced.socket, 300)
    with pytest.raises(HostError, match="no balancer answers"):
        read_shares(tmp_path / "none")


def _make_certificate(folder: Path) -> Path:
    """Write a key and a certificate for this machine; return the file of both."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=IP:127.0.0.1"]
        + ["-keyout", str(folder / "key"), "-out", str(folder / "crt")],
        check=True,
        capture_output=True,
    )
    path = folder / "certificate.pem"
    path.write_text((folder / "crt").read_text() + (folder / "key").read_text())
    return path


def test_over_tls_and_with_a_server_that_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What had not begun at the dead server goes to the other one: no request fails."""
    certificate = _make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "crt"))
    with balance(tmp_path, str(certificate)) as balanced:
        assert balanced.url.startswith("https://")
        set_canary_share(balanced.socket, 50)
        assert {balanced.ask_once() for _ in range(4)} == {"stable", "canary"}
        for _ in range(3):
            assert _refuse(balanced) == (413, "request_too_large")
        (server,) = _find_servers(tmp_path / "canary.gguf")
        os.kill(server, signal.SIGKILL)
        assert [balanced.ask_once() for _ in range(10)] == ["stable"] * 10


def _find_servers(gguf: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if str(gguf).encode() in words and words[0].endswith(b"llama-server"):
                found.append(int(path.parent.name))
    return found


def test_the_configuration_of_compose_is_valid(tmp_path: Path) -> None:
    if _PROGRAM is None:
        pytest.skip("no haproxy: apt-get install haproxy")
    write_directories(tmp_path, "")
    path = tmp_path / "balancer" / "haproxy.cfg"
    told = subprocess.run([_PROGRAM, "-c", "-f", str(path)], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
