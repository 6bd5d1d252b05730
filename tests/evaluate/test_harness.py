"""lm-evaluation-harness is told the endpoint, the tasks and nothing secret on its command line."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.evaluate.harness import Asking, make_harness_argv, make_harness_variables

_ASKING = Asking(
    url="http://127.0.0.1:8080",
    model="tristill-demo",
    tasks=("gsm8k", "mine"),
    parallel=4,
    max_tokens=96,
    seed=1,
)


def test_the_command_line() -> None:
    assert make_harness_argv("lm_eval", _ASKING, Path("/out")) == [
        *("lm_eval", "--model", "local-chat-completions", "--model_args"),
        "base_url=http://127.0.0.1:8080/v1/chat/completions,model=tristill-demo,num_concurrent=4,"
        "max_gen_toks=96,max_retries=3,timeout=3600,think_end_token=</think>",
        *("--tasks", "gsm8k,mine", "--apply_chat_template"),
        *("--seed", "1", "--log_samples", "--output_path", "/out"),
    ]


def test_another_endpoints_key_does_not_reach_this_one() -> None:
    caller = {"PATH": "/bin", "OPENAI_API_KEY": "of another service"}
    assert make_harness_variables(caller) == {"PATH": "/bin", "OPENAI_API_KEY": "none"}
    assert make_harness_variables(caller, "ours")["OPENAI_API_KEY"] == "ours"


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Healthy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _install(folder: Path) -> Path:
    """Put a program there that writes down how it is called, and fails for the task `bad`."""
    program = folder / "lm_eval"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "told = {'argv': sys.argv[1:], 'key': os.environ['OPENAI_API_KEY']}\n"
        f"open({str(folder / 'told.json')!r}, 'w').write(json.dumps(told))\n"
        "sys.exit('bad' in sys.argv)\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder / "told.json"


def _run(folder: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    path = f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "lm-eval", "--store", str(folder / "store"), *argv],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_running_server_is_asked(tmp_path: Path, url: str) -> None:
    written = _install(tmp_path)
    (tmp_path / "keys").write_text("# ours\nsecret\nanother\n")
    keys = ("--api-key-file", str(tmp_path / "keys"))
    told = _run(tmp_path, "gsm8k", "mine", "--url", f"{url}/", "--limit", "8", *keys)
    assert told.returncode == 0, told.stderr
    found = json.loads(written.read_text())
    assert found["key"] == "secret"
    assert "secret" not in told.stderr + told.stdout
    assert found["argv"][3].startswith(f"base_url={url}/v1/chat/completions,model=tristill-demo,")
    assert found["argv"][4:6] == ["--tasks", "gsm8k,mine"]
    assert found["argv"][-4:-2] == ["--output_path", str(tmp_path / "out" / "demo" / "lm-eval")]
    assert found["argv"][-2:] == ["--limit", "8"]
    assert _run(tmp_path, "bad", "--url", url).returncode == 5


def test_what_is_missing_is_said(tmp_path: Path, url: str) -> None:
    told = _run(tmp_path, "gsm8k", "--url", url)
    assert told.returncode == 3
    assert 'pip install "lm-eval[api]"' in told.stderr
    _install(tmp_path)
    assert _run(tmp_path, "a,b", "--url", url).returncode == 2
    told = _run(tmp_path, "gsm8k", "--url", "http://127.0.0.1:9")
    assert told.returncode == 3
    assert "make serve" in told.stderr
