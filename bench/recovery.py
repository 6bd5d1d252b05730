"""A server killed under traffic: what failed, and how soon it answers again.

Two of ours stand behind HAProxy, as in the compose profile `canary`, with half of the traffic each.
One's process is killed by SIGKILL and started again at once, which is what the restart policy of
compose does. Clients do not try again.
"""

import http.client
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.clients import Answer, Sum, ask
from bench.servers import Settings, find_llama_server, find_port, is_ready, ours
from pipeline.errors import StageError
from pipeline.serve.balancer import (
    CANARY,
    STABLE,
    Balancer,
    make_configuration,
    read_shares,
    set_canary_share,
)

_CLIENTS = 8
_BEFORE_S, _AFTER_S = 2.0, 3.0
_LONGEST_S = 120.0
_UP = "UP"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """`back_s`: from the kill until the balancer hands requests to it again; `ready_s`: until it
    answers itself."""

    requests: int
    failed: int
    wrong: int
    ready_s: float
    back_s: float


def find_haproxy() -> str | None:
    """Return the program, None where this host has none."""
    return shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")


def measure_recovery(settings: Settings, haproxy: str, answers: Mapping[Sum, Answer]) -> Recovery:
    """Kill one of two under traffic; `answers`: what the model says to each sum alone."""
    places = {name: settings.work / name for name in (STABLE, CANARY)}
    for place in places.values():
        place.mkdir()
    ports = {name: find_port() for name in places}
    of = {name: replace(settings, work=place) for name, place in places.items()}
    with ExitStack() as kept:
        kept.enter_context(ours(of[CANARY], ports[CANARY]))
        first = kept.enter_context(ours(of[STABLE], ports[STABLE]))
        listen, socket = kept.enter_context(_balanced(settings.work, ports, haproxy))
        traffic = kept.enter_context(_asking(listen, answers))
        time.sleep(_BEFORE_S)
        killed = time.perf_counter()
        os.kill(find_llama_server(first.port), signal.SIGKILL)
        first.process.wait(_LONGEST_S)
        kept.enter_context(ours(of[STABLE], ports[STABLE]))
        ready_s = time.perf_counter() - killed
        _wait(lambda: read_shares(socket)[STABLE][1].startswith(_UP), "its server is not up again")
        back_s = time.perf_counter() - killed
        time.sleep(_AFTER_S)
        traffic.stop()
        return Recovery(
            requests=traffic.requests,
            failed=traffic.failed,
            wrong=traffic.wrong,
            ready_s=ready_s,
            back_s=back_s,
        )


@contextmanager
def _balanced(work: Path, ports: dict[str, int], haproxy: str) -> Iterator[tuple[int, Path]]:
    """Yield the port of a balancer that gives each half, and its socket."""
    listen, figures, path = find_port(), find_port(), work / "haproxy.sock"
    balancer = Balancer(
        listen=f"127.0.0.1:{listen}",
        figures=f"127.0.0.1:{figures}",
        socket=str(path),
        servers={name: f"127.0.0.1:{ports[name]}" for name in (STABLE, CANARY)},
    )
    configuration = work / "haproxy.cfg"
    configuration.write_text(make_configuration(balancer), encoding="utf-8")
    with (
        (work / "haproxy.log").open("wb") as log,
        subprocess.Popen([haproxy, "-f", configuration], stdout=log, stderr=log) as running,
    ):
        try:
            _wait(lambda: path.exists() and is_ready(listen), "the balancer does not start")
            set_canary_share(path, 50)
            yield listen, path
        finally:
            running.terminate()


class _Traffic:
    """Clients that ask until they are told to stop, each request on a connection of its own."""

    def __init__(self, port: int, answers: Mapping[Sum, Answer]) -> None:
        self._port = port
        self._answers = answers
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.requests = self.failed = self.wrong = 0
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(_CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every client end its request."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int) -> None:
        while not self._over.is_set():
            for asked in random.Random(seed).sample(list(self._answers), len(self._answers)):
                if self._over.is_set():
                    return
                connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
                try:
                    right = ask(connection, asked) == self._answers[asked]
                    failed = False
                except (OSError, ValueError, LookupError, http.client.HTTPException):
                    right, failed = True, True
                finally:
                    connection.close()
                with self._lock:
                    self.requests += 1
                    self.failed += failed
                    self.wrong += not right


@contextmanager
def _asking(port: int, answers: Mapping[Sum, Answer]) -> Iterator[_Traffic]:
    traffic = _Traffic(port, answers)
    try:
        yield traffic
    finally:
        traffic.stop()


def _wait(is_so: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + _LONGEST_S
    while not is_so():
        if time.monotonic() > deadline:
            raise StageError(
                "the recovery cannot be measured", on="HAProxy", why=why, then="run this again"
            )
        time.sleep(0.02)
