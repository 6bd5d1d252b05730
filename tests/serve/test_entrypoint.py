"""What the image serve starts, as a program of this host: its cores, and that it serves what `make
serve` serves."""

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.data.templates import BUILT_IN
from pipeline.serve.argv import ServerSettings, make_server_argv
from pipeline.serve.thinking import fold_thinking
from tests.serve.scripted_gguf import Script, write_model

# llama.cpp's own names of the options that `make serve` gives, by the variable of the entrypoint.
_OPTIONS = {
    "LLAMA_ARG_CONTEXT_SHIFT": ("--no-context-shift", "0"),
    "LLAMA_ARG_ENDPOINT_SLOTS": ("--no-slots", "0"),
    "LLAMA_ARG_JINJA": ("--jinja", "1"),
    "LLAMA_ARG_KV_UNIFIED": ("--no-kv-unified", "0"),
    "LLAMA_ARG_OFFLINE": ("--offline", "1"),
    "LLAMA_ARG_CORS_ORIGINS": ("--cors-origins", None),
    "LLAMA_ARG_CTX_SIZE": ("--ctx-size", None),
    "LLAMA_ARG_HOST": ("--host", None),
    "LLAMA_ARG_MODEL": ("--model", None),
    "LLAMA_ARG_N_PARALLEL": ("--parallel", None),
    "LLAMA_ARG_PORT": ("--port", None),
    "LLAMA_ARG_THINK": ("--reasoning-format", None),
}
_FOLD = REPOSITORY / "docker" / "serve" / "thinking.jinja"


@pytest.fixture(scope="module")
def entrypoint() -> dict[str, Any]:
    return runpy.run_path(str(REPOSITORY / "docker" / "serve" / "entrypoint"))


def test_it_serves_as_make_serve_does(entrypoint: dict[str, Any]) -> None:
    settings = ServerSettings(
        host="0.0.0.0", port=8080, context=16384, parallel=1, threads=0, web_page=True
    )
    argv = make_server_argv("llama-server", "/model.gguf", settings)
    written = []
    variables = entrypoint["DEFAULTS"] | entrypoint["split_thinking"]("")
    for variable, (option, switch) in _OPTIONS.items():
        value = variables[variable]
        assert switch in (None, value)
        written += [option] if switch else [option, value]
    assert sorted(written) == sorted(argv[1:])
    assert variables.keys() - _OPTIONS.keys() == {"LLAMA_ARG_STATIC_PATH"}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "250000 100000"}, 2),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ],
    ids=str,
)
def test_it_takes_the_cores_that_it_is_given(
    entrypoint: dict[str, Any],
    files: dict[str, str],
    cores: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert entrypoint["count_cores"](tmp_path) == cores


def test_it_splits_thinking_off_as_make_serve_does(
    entrypoint: dict[str, Any], tmp_path: Path
) -> None:
    entrypoint["split_thinking"].__globals__["FOLD"] = _FOLD
    script = Script(pieces=["<think>"])
    gguf = write_model(tmp_path / "model.gguf", script)
    assert entrypoint["read_template"](gguf) == script.template
    assert entrypoint["split_thinking"](script.template) == {
        "LLAMA_ARG_THINK": "deepseek",
        "LLAMA_ARG_CHAT_TEMPLATE": fold_thinking(script.template),
    }


@pytest.mark.parametrize("family", ["qwen", "mistral-v13"])
def test_a_template_that_writes_thinking_itself_is_left_alone(
    entrypoint: dict[str, Any], family: str
) -> None:
    assert entrypoint["split_thinking"](BUILT_IN[family]) == {"LLAMA_ARG_THINK": "deepseek"}


@pytest.mark.parametrize("content", [b"", b"no GGUF", None], ids=["empty", "text", "absent"])
def test_a_file_without_a_template_has_none(
    entrypoint: dict[str, Any], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    assert entrypoint["read_template"](path) == ""
