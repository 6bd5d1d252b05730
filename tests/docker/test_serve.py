"""The serve image as its user meets it: a bare `docker run` on a GGUF, its options, its end."""

import json
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docker.serve_container import (
    Container,
    ask_docker,
    fetch,
    find_gguf,
    provide_image,
    read_problem,
    serve,
)

pytestmark = pytest.mark.docker

_PORT = ("--publish", "127.0.0.1::8080")
# What a page asks for by itself, and what a style sheet does.
_FETCHED = {("script", "src"), ("img", "src"), ("link", "href"), ("iframe", "src")}
_IN_STYLE = re.compile(r"""(?:url\(\s*["']?|@import\s+["'])(?!data:)([^"')\s]+)""")


class _Page(HTMLParser):
    """Collects what an HTML page fetches."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: set[str] = set()
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        self.fetched |= {value for name, value in attrs if value and (tag, name) in _FETCHED}

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.fetched |= set(_IN_STYLE.findall(data))


def _mount(gguf: Path) -> tuple[str, str]:
    return "--volume", f"{gguf}:/model.gguf"


@pytest.fixture(scope="module")
def bare() -> Iterator[Container]:
    """A container of the image with nothing but a port and a file."""
    with serve(*_PORT, *_mount(find_gguf())) as container:
        yield container


def _answer(container: Container) -> dict[str, str]:
    status, _, text = fetch(f"{container.url}/v1/chat/completions", read_problem()[0])
    assert status == 200, text
    message: dict[str, str] = json.loads(text)["choices"][0]["message"]
    return message


def test_a_bare_run_answers_chats_with_the_model(bare: Container) -> None:
    message = _answer(bare)
    assert message["content"] == read_problem()[1]
    assert message["reasoning_content"]
    assert "think>" not in message["reasoning_content"]


def test_a_bare_run_takes_the_code_that_suits_this_cpu(bare: Container) -> None:
    maps = ask_docker("exec", bare.name, "sh", "-c", "cat /proc/[0-9]*/maps")
    folder = "/opt/tristill/llama/backends"
    (taken,) = set(re.findall(rf"{folder}/libggml-cpu-(\w+)\.so", maps))
    assert f"{folder}/libggml.so" in maps
    assert "/opt/tristill/llama/lib/libggml" not in maps
    listed = ask_docker("exec", bare.name, "ls", folder)
    offered = set(re.findall(r"libggml-cpu-(\w+)\.so", listed))
    assert offered == {"x64", "sse42", "haswell", "skylakex", "icelake", "zen4", "alderlake"}
    has_avx2 = " avx2 " in Path("/proc/cpuinfo").read_text()
    assert (taken in {"x64", "sse42"}) == (not has_avx2)


def test_it_has_the_models_context_one_slot_and_all_cores(bare: Container) -> None:
    props = json.loads(fetch(f"{bare.url}/props")[2])
    _, _, models = fetch(f"{bare.url}/v1/models")
    trained = json.loads(models)["data"][0]["meta"]["n_ctx_train"]
    assert props["default_generation_settings"]["n_ctx"] == trained
    assert props["total_slots"] == 1
    cores = ask_docker(
        "exec", bare.name, "python", "-c", "import os; print(len(os.sched_getaffinity(0)))"
    )
    assert f"n_threads = {cores.strip()}\n" in _read_log(bare)


def test_the_chat_page_needs_nothing_from_elsewhere(bare: Container) -> None:
    status, kind, text = fetch(f"{bare.url}/")
    assert (status, kind) == (200, "text/html")
    page = _Page()
    page.feed(text)
    assert page.fetched
    for path in page.fetched:
        assert "//" not in path
        assert fetch(f"{bare.url}/{path.removeprefix('./')}")[0] == 200, path


def test_the_chat_page_can_ask_for_the_key(bare: Container) -> None:
    """The page is open to all, as one file; what it asks of the server is not."""
    secret = ("--env", "LLAMA_API_KEY=abc")
    with serve(*_PORT, *secret, *_mount(find_gguf())) as container:
        assert fetch(f"{container.url}/")[2] == fetch(f"{bare.url}/")[2]
        url = f"{container.url}/v1/chat/completions"
        assert fetch(url, read_problem()[0])[0] == 401
        assert fetch(url, read_problem()[0], key="abc")[0] == 200


def test_options_after_the_image_and_variables_reach_the_server() -> None:
    told = ("--env", "LLAMA_ARG_ALIAS=adder", "--env", "LLAMA_ARG_THINK=none")
    options = (*_PORT, "--cpus", "1", *told)
    with serve(*options, *_mount(find_gguf()), arguments=["--ctx-size", "256"]) as container:
        props = json.loads(fetch(f"{container.url}/props")[2])
        assert props["default_generation_settings"]["n_ctx"] == 256
        assert props["model_alias"] == "adder"
        assert "n_threads = 1\n" in _read_log(container)
        assert _answer(container)["content"].startswith("<think>")
        assert _answer(container)["content"].endswith(f"</think>\n{read_problem()[1]}")


def test_it_serves_for_a_stranger_who_may_do_nothing() -> None:
    hardened = (
        *("--read-only", "--network", "none", "--user", "12345:12345", "--cap-drop", "ALL"),
        *("--security-opt", "no-new-privileges"),
    )
    chat = json.dumps(read_problem()[0])
    program = (
        "import sys, urllib.request as r; print(r.urlopen(r.Request("
        "'http://127.0.0.1:8080/v1/chat/completions', sys.argv[1].encode(),"
        "{'Content-Type': 'application/json'})).read().decode())"
    )
    with serve(*hardened, *_mount(find_gguf())) as container:
        text = ask_docker("exec", container.name, "python", "-c", program, chat)
        assert read_problem()[1] in json.loads(text)["choices"][0]["message"]["content"]


def test_it_ends_by_itself_when_it_is_asked_to() -> None:
    """0 is its own exit code; 137 would be that of a container which had to be killed."""
    with serve(*_mount(find_gguf())) as container:
        ask_docker("stop", "--time", "30", container.name)
        assert container.inspect("{{.State.ExitCode}}") == "0"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ([], "no such file"),
        (["--volume", "{path}/missing.gguf:/model.gguf"], "not a file"),
        (["--volume", "{path}/private.gguf:/model.gguf"], "user 65532:65532 may not read it"),
        (["--env", "LLAMA_ARG_MODEL=/models/a.gguf"], "no such file"),
    ],
)
def test_without_a_model_it_says_what_to_do(options: list[str], why: str, tmp_path: Path) -> None:
    private = tmp_path / "private.gguf"
    private.touch(mode=0o600)
    words = [word.format(path=tmp_path) for word in options]
    told = subprocess.run(
        ["docker", "run", "--rm", "--pull", "never", *words, provide_image("serve")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert told.stderr.startswith("error: there is no model to serve\n")
    assert f"why:  {why}" in told.stderr
    assert "next: docker run -p 8080:8080 -v" in told.stderr


def test_it_is_not_healthy_without_a_server() -> None:
    told = subprocess.run(
        ["docker", "run", "--rm", "--pull", "never", provide_image("serve"), "--ask-health"],
        capture_output=True,
        check=False,
    )
    assert told.returncode == 1


def test_the_server_is_compiled_for_this_decades_processors() -> None:
    """As GGML_NATIVE=OFF says, and as a virtual environment has it."""
    program = "import ctypes; print(ctypes.CDLL('libggml-cpu.so').ggml_cpu_has_avx2())"
    libraries = ("--env", "LD_LIBRARY_PATH=/opt/tristill/llama/lib", "--entrypoint", "python")
    words = ("run", "--rm", "--network", "none", *libraries, provide_image("serve"))
    assert ask_docker(*words, "-c", program) == "1\n"


def test_it_holds_the_server_and_no_other_tool() -> None:
    listing = ask_docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "find", provide_image("serve")),
        *("/opt", "/usr/local", "-maxdepth", "5", "-not", "-path", "*/site-packages/*"),
    ).splitlines()
    programs = {path.rpartition("/")[2] for path in listing if "/llama/bin/" in path}
    assert programs == {"llama-server"}
    assert "/opt/tristill/llama/LICENSE" in listing
    strangers = ("node", "npm", "pip", "pip3", "llama-quantize", "convert_hf_to_gguf.py")
    assert [path for path in listing if path.rpartition("/")[2] in strangers] == []


def _read_log(container: Container) -> str:
    told = subprocess.run(["docker", "logs", container.name], capture_output=True, check=True)
    return (told.stdout + told.stderr).decode()
