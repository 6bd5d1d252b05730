"""A llama.cpp server on a GGUF, for as long as a `with` block lasts.

It listens on the loopback address on a port that the kernel chooses when it binds, so two servers
cannot be given one port; it is ready when /health says so, and it is always stopped.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import StageError
from pipeline.log import say
from pipeline.serve.argv import ServerSettings, make_server_argv

# A 14 GB file from a slow disk takes minutes.
START_S = 1800.0
_STOP_S = 10.0
_POLL_S = 0.05
_LISTENING = re.compile(r"listening on (http://\S+:\d+)")
_SHOWN_LINES = 8
_PR_SET_PDEATHSIG = 1


@contextmanager
def llama_server(
    gguf: Path,
    *,
    context: int,
    parallel: int,
    threads: int,
    device: str = "",
    start_s: float = START_S,
) -> Iterator[str]:
    """Serve the file and yield the server's base URL, without a slash at its end.

    `context` counts the tokens of one slot; `device` is one that must hold the model.

    Raises StageError with the server's last lines when it dies or is not ready within `start_s`
    seconds.
    """
    settings = ServerSettings(
        host="127.0.0.1",
        port=0,
        context=context,
        parallel=parallel,
        threads=threads,
        web_page=False,
        device=device,
    )
    with run_server(gguf, settings, start_s=start_s) as url:
        yield url


@contextmanager
def run_server(gguf: Path, settings: ServerSettings, *, start_s: float = START_S) -> Iterator[str]:
    """Serve the file as the settings say, and yield the base URL. Raises StageError as above."""
    program = Path(sys.prefix) / "llama" / "bin" / "llama-server"
    argv = make_server_argv(str(program), str(gguf), settings)
    say("+ " + " ".join(["llama-server", *argv[1:]]))
    with tempfile.TemporaryFile() as log:
        process = _start(argv, log.fileno())
        try:
            yield _wait_until_ready(process, log.fileno(), gguf, time.monotonic() + start_s)
        finally:
            _stop(process)


def _start(argv: list[str], log: int) -> subprocess.Popen[bytes]:
    # llama.cpp also reads options from the environment; what is served is said here alone.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA_")}
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            preexec_fn=_stop_with_parent,
        )
    except OSError as error:
        raise StageError(
            "the server cannot be started",
            on=argv[0],
            why=str(error),
            then="set the serve environment up again",
        ) from None


def _stop_with_parent() -> None:
    """Ask the kernel (Linux) to stop the server when this stage is killed and cannot do so."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_until_ready(
    process: subprocess.Popen[bytes], log: int, gguf: Path, deadline: float
) -> str:
    while time.monotonic() < deadline:
        text = _read_log(log)
        if process.poll() is not None:
            raise _make_error(f"it ended with exit code {process.returncode}", gguf, text)
        if (match := _LISTENING.search(text)) is not None and _is_healthy(match[1]):
            return match[1]
        time.sleep(_POLL_S)
    raise _make_error("it was not ready in time", gguf, _read_log(log))


def _read_log(log: int) -> str:
    return os.pread(log, os.fstat(log).st_size, 0).decode("utf-8", errors="replace")


def _is_healthy(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        # 503 while the model loads
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _make_error(what: str, gguf: Path, text: str) -> StageError:
    said = text.splitlines()
    # After an error in its options come many lines on how they are used.
    lines = [line for line in said[:-_SHOWN_LINES] if line.startswith("error")][:1]
    lines += said[-_SHOWN_LINES:]
    return StageError(
        "the server does not serve this file",
        on=gguf.name,
        why="\n        ".join([what, *lines]),
        then="free memory, or use a smaller type; a damaged file is found by `verify`",
    )
