"""`serve` from the command line: what it refuses to start, how it serves, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.data.templates import BUILT_IN
from pipeline.serve.access import find_free_port
from tests.serve.scripted_gguf import Script, write_model

pytestmark = pytest.mark.serve

_READY_S = 60.0
_RECIPE = """
[base]
source = "demo"
[dataset]
source = "demo"
[train]
method = "lora"
[gguf]
name = "scripted"
[serve]
accelerator = "cpu"
context = {context}
"""


class Case:
    """A recipe, its GGUF, and the command that serves it."""

    def __init__(self, folder: Path, *, endless: bool = False, context: int = 512) -> None:
        self.folder = folder
        self.port = find_free_port("127.0.0.1", 20_000 + os.getpid() % 10_000)
        self.recipe = folder / "case.toml"
        self.recipe.write_text(_RECIPE.format(context=context))
        pieces = ["on ", "and "] if endless else ["<think>", "\nOne.", "\n</think>", "\nTwo"]
        self.gguf = write_model(folder / "model.gguf", Script(pieces=pieces, endless=endless))

    def make_argv(self, *more: str) -> list[str]:
        argv = [sys.executable, "-m", "pipeline", "serve", "--recipe", str(self.recipe)]
        argv += ["--store", str(self.folder / "store"), "--engine", "venv"]
        return [*argv, "--gguf", str(self.gguf), "--port", str(self.port), *more]

    def run(self, *more: str) -> "subprocess.CompletedProcess[str]":
        """Run it to its end: it is expected to refuse."""
        return subprocess.run(
            self.make_argv(*more), cwd=REPOSITORY, capture_output=True, text=True, timeout=60
        )

    @contextmanager
    def serve(self, *more: str) -> Iterator["subprocess.Popen[str]"]:
        """Yield the running command when it says that it is ready; kill it at the end."""
        process = subprocess.Popen(
            self.make_argv(*more), cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
        )
        with process:
            try:
                assert process.stderr is not None
                said = ""
                while not said.startswith("ready: "):
                    said = process.stderr.readline()
                    assert said, process.wait()
                yield process
            finally:
                process.kill()

    def ask(self, **changes: object) -> "urllib.request.Request":
        body = {"messages": [{"role": "user", "content": "1 + 1"}], **changes}
        url = f"http://127.0.0.1:{self.port}/v1/chat/completions"
        headers = {"Content-Type": "application/json", "Authorization": "Bearer secret"}
        return urllib.request.Request(url, json.dumps(body).encode(), headers)


def test_it_serves_until_it_is_asked_to_stop(tmp_path: Path) -> None:
    case = Case(tmp_path)
    (tmp_path / "keys").write_text("secret\n")
    with case.serve("--host", "0.0.0.0", "--api-key-file", str(tmp_path / "keys")) as process:
        with urllib.request.urlopen(case.ask(), timeout=60) as answer:
            document = json.load(answer)
        message = document["choices"][0]["message"]
        assert (message["reasoning_content"].strip(), message["content"]) == ("One.", "Two")
        assert document["model"] == "case"
        told = case.run()
        assert told.returncode == 3
        assert "another program listens there" in told.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read().endswith("the server has stopped\n")


def test_thinking_that_was_taught_in_chunks_is_told_apart_as_such(tmp_path: Path) -> None:
    case = Case(tmp_path)
    written = 'template = "mistral-v13"\nthinking = "chunks"\n[train]'
    case.recipe.write_text(case.recipe.read_text().replace("[train]", written))
    script = Script(
        pieces=["[THINK]", "One.", "[/THINK]", "Two"],
        template=BUILT_IN["mistral-v13"],
        after="[/INST]",
    )
    write_model(case.gguf, script)
    with case.serve(), urllib.request.urlopen(case.ask(), timeout=60) as answer:
        message = json.load(answer)["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("One.", "Two")


def test_what_is_being_answered_is_finished_first(tmp_path: Path) -> None:
    case = Case(tmp_path, endless=True, context=4096)
    answers: list[dict[str, object]] = []

    def ask() -> None:
        with urllib.request.urlopen(case.ask(max_tokens=1200), timeout=60) as answer:
            answers.append(json.load(answer)["usage"])

    with case.serve() as process:
        thread = threading.Thread(target=ask)
        thread.start()
        _wait_until_busy(case.port)
        process.send_signal(signal.SIGINT)
        thread.join()
        assert process.wait(30) == 0
    assert [usage["completion_tokens"] for usage in answers] == [1200]


def _wait_until_busy(port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            if b"requests_processing 1" in answer.read():
                return
    raise AssertionError("the request was never processed")


def test_a_killed_command_leaves_no_server(tmp_path: Path) -> None:
    case = Case(tmp_path)
    with case.serve() as process:
        (server,) = _find_children(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + _READY_S
        while Path("/proc", str(server)).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
    assert not Path("/proc", str(server)).exists()


def _find_children(pid: int) -> list[int]:
    tasks = Path("/proc", str(pid), "task").glob("*/children")
    return [int(child) for path in tasks for child in path.read_text().split()]


def test_a_server_that_dies_is_a_failure(tmp_path: Path) -> None:
    case = Case(tmp_path)
    with case.serve() as process:
        (server,) = _find_children(process.pid)
        os.kill(server, signal.SIGKILL)
        assert process.wait(30) == 5
        assert process.stderr is not None
        assert "the server ended by itself" in process.stderr.read()


@pytest.mark.parametrize(
    ("code", "words", "more"),
    [
        (2, "needs a key", ["--host", "0.0.0.0"]),
        (2, "no address", ["--host", "localhost.example"]),
        (2, "invalid port", ["--port", "70000"]),
        (2, "the file of keys cannot be used", ["--api-key-file", "nowhere"]),
    ],
)
def test_the_command_line_is_checked_first(
    tmp_path: Path, code: int, words: str, more: list[str]
) -> None:
    told = Case(tmp_path).run(*more)
    assert told.returncode == code
    assert words in told.stderr


def test_the_file_is_checked_before_it_is_loaded(tmp_path: Path) -> None:
    case = Case(tmp_path)
    whole = case.gguf.read_bytes()
    case.gguf.write_bytes(whole[:-1000])
    told = case.run()
    assert (told.returncode, "it was cut off" in told.stderr) == (2, True)
    case.gguf.write_bytes(whole[:4] + b"\x02" + whole[5:])
    told = case.run()
    assert (told.returncode, "it is of version 2" in told.stderr) == (2, True)
    write_model(case.gguf, Script(pieces=["a"], name="somebody's"))
    told = case.run()
    assert (told.returncode, "not this recipe's" in told.stderr) == (2, True)


@pytest.mark.parametrize(
    ("mine", "other", "why"),
    [
        ("", "[demo]\ndigits = 5\n", "their base is not the same"),
        ("", 'type = "Q8_0"\n[gguf]\ntypes = ["Q8_0"]\n', "their [serve] type or chat template"),
        ('type = "IQ1_S"\n[gguf]\ntypes = ["IQ1_S"]\ncalibration = 9\n', "", "importance matrix"),
        ("", '[train]\nmethod = "full"\n', "its weights were trained whole"),
    ],
)
def test_adapters_of_different_bases_are_not_served_as_one(
    tmp_path: Path, mine: str, other: str, why: str
) -> None:
    """Said before anything is built."""
    head = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n[serve]\naccelerator = "cpu"\n'
    for name, text in {"mine": mine, "other": other}.items():
        (tmp_path / f"{name}.toml").write_text(head + text)
    argv = [sys.executable, "-m", "pipeline", "serve", "--recipe", str(tmp_path / "mine.toml")]
    argv += ["--store", str(tmp_path / "store"), "--beside", str(tmp_path / "other.toml")]
    told = subprocess.run(
        [*argv, "--port", str(find_free_port("127.0.0.1", 20_000))],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2, told.stderr
    assert why in told.stderr


def test_a_context_without_room_is_told_with_one_that_has(tmp_path: Path) -> None:
    told = Case(tmp_path, context=10**12).run()
    assert told.returncode == 4
    assert "set [serve] context = " in told.stderr
