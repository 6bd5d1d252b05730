"""The servers that are measured, each for as long as a `with` block lasts: ours as `make serve`
starts it, a bare llama-server on the same file, and llama-cpp-python's own.

The last one's extra packages lie beside the images' environments, in a directory named by the
digest of serve_peers.txt; the binding itself is that of the image convert.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.timing import make_variables
from pipeline.artifact.key import REPOSITORY
from pipeline.engine import process, venv
from pipeline.engine.environment import (
    Environment,
    find_interpreter,
    make_interpreter_document,
    make_once,
    read_envs_dir,
)
from pipeline.engine.image import make_files_document
from pipeline.engine.packages import find_site_packages, make_host_environment, make_pip_argv
from pipeline.errors import HostError, StageError
from pipeline.log import say
from pipeline.serve.gguf_file import read_gguf
from pipeline.serve.thinking import fold_thinking

LOCK = REPOSITORY / "bench" / "serve_peers.txt"
KEY = "bench-key"
_START_S = 120.0
_STOP_S = 30.0
_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every server is asked to be; `context` counts the tokens of one slot."""

    gguf: Path
    recipe: Path
    context: int
    parallel: int
    work: Path


@dataclass(frozen=True, kw_only=True)
class Server:
    """One that answers: its port on the loopback address, and its first process."""

    title: str
    port: int
    process: "subprocess.Popen[bytes]"


def find_llama_server(port: int) -> int:
    """Return the process that has the model, which may be a child of the one that was started."""
    wanted = f"--port\0{port}\0".encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if b"llama-server\0" in line and wanted in line:
            return int(path.parent.name)
    raise StageError(
        "the server's process is not there",
        on=f"port {port}",
        why="no llama-server was started on it",
        then="run this again",
    )


@contextmanager
def ours(settings: Settings, port: int = 0) -> Iterator[Server]:
    """Serve as `make serve` does, with a key."""
    keys = settings.work / "keys"
    keys.write_text(f"{KEY}\n")
    keys.chmod(0o600)
    port = port or find_port()
    argv = [sys.executable, "-m", "pipeline", "serve", "--engine", "venv"]
    argv += ["--recipe", str(settings.recipe), "--store", str(settings.work / "store")]
    argv += ["--gguf", str(settings.gguf), "--port", str(port), "--api-key-file", str(keys)]
    with _running("ours", argv, port, settings.work, stop=signal.SIGINT) as server:
        yield server


@contextmanager
def bare(settings: Settings, options: Sequence[str] = ()) -> Iterator[Server]:
    """Serve by llama-server alone, with nothing of ours but the room that it has."""
    port = find_port()
    program = venv.python_of("serve", read_envs_dir()).parents[1] / "llama" / "bin" / "llama-server"
    argv = [str(program), "--model", str(settings.gguf), "--port", str(port), "--jinja"]
    argv += ["--ctx-size", str(settings.context * settings.parallel)]
    argv += ["--parallel", str(settings.parallel), "--api-key", KEY]
    argv += options
    with _running("llama-server", argv, port, settings.work) as server:
        yield server


@contextmanager
def splitting(settings: Settings) -> Iterator[Server]:
    """Serve by llama-server alone, told as ours is how thinking is taken out of an answer."""
    template = settings.work / "template.jinja"
    template.write_text(fold_thinking(read_gguf(settings.gguf).chat_template), encoding="utf-8")
    options = ["--reasoning-format", "deepseek", "--chat-template-file", str(template)]
    with bare(settings, options) as server:
        yield server


@contextmanager
def binding(settings: Settings) -> Iterator[Server]:
    """Serve by `python -m llama_cpp.server`."""
    port = find_port()
    argv = [str(_install() / "bin" / "python"), "-m", "llama_cpp.server"]
    argv += ["--model", str(settings.gguf), "--n_ctx", str(settings.context)]
    argv += ["--port", str(port), "--api_key", KEY]
    with _running("llama_cpp.server", argv, port, settings.work) as server:
        yield server


def find_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def _running(
    title: str, argv: Sequence[str], port: int, work: Path, stop: int = signal.SIGTERM
) -> Iterator[Server]:
    log = work / f"{title}.log"
    variables = make_variables() | {"TRISTILL_ENVS": str(read_envs_dir())}
    with log.open("ab") as file:
        started = subprocess.Popen(
            argv, cwd=REPOSITORY, env=variables, stdout=file, stderr=file, start_new_session=True
        )
    server = Server(title=title, port=port, process=started)
    try:
        _wait(server, log)
        yield server
    finally:
        _stop(started, stop)


def _wait(server: Server, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and server.process.poll() is None:
        if is_ready(server.port):
            return
        time.sleep(_POLL_S)
    raise StageError(
        "a measured server does not start",
        on=server.title,
        why=process.read_last_lines(log),
        then="mend that; then run this again",
    )


def is_ready(port: int) -> bool:
    """Return whether it lists its models, which each of them does once it can answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models")
    request.add_header("Authorization", f"Bearer {KEY}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            # llama-server lists them while it loads; its /health says when it is done.
            return bool(answer.status == 200) and _is_healthy(port)
    except (OSError, urllib.error.URLError):
        return False


def _is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        return error.code != 503
    except OSError:
        return False


def _stop(started: "subprocess.Popen[bytes]", number: int) -> None:
    """Ask it to end, then end all that it started."""
    if started.poll() is None:
        started.send_signal(number)
        try:
            started.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            say(f"process {started.pid} does not end; it is killed")
    try:
        os.killpg(started.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    started.wait()


def _install() -> Path:
    """Return the environment of llama-cpp-python's server; HostError when pip cannot make it."""
    convert = venv.python_of("convert", read_envs_dir())
    document: dict[str, object] = {
        "lock": make_files_document(LOCK),
        "host": make_interpreter_document(),
        "binding": convert.parents[1].name,
    }
    environment = Environment(name="serve-peers", document=document)
    return make_once(environment, read_envs_dir(), lambda path, log: _make_venv(path, log, convert))


def _make_venv(path: Path, log: Path, convert: Path) -> None:
    say("installing llama-cpp-python's server, once ...")
    create: list[str | Path] = [find_interpreter().path, "-m", "venv", path]
    pip = [*make_pip_argv(path, "install"), "--require-hashes", "-r", LOCK]
    for argv in (create, pip):
        if process.run(argv, log_path=log, environment=make_host_environment()) != 0:
            raise HostError(
                "the peer cannot be installed",
                on=str(path),
                why=process.read_last_lines(log),
                then=f"read {log}, then run this again",
            )
    # Behind its own packages: the binding, and what that imports.
    beside = find_site_packages(path) / "binding.pth"
    beside.write_text(f"{find_site_packages(convert.parents[1])}\n")
