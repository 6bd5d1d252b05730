"""A page for this host's browser alone, read anew for each request."""

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.artifact.store import Store, open_store
from pipeline.report.training import read_run
from pipeline.report.training_server import PageServer
from tests.report.test_training import make_line, make_log, make_step


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def server(store: Store) -> Iterator[PageServer]:
    with PageServer(0, lambda: read_run("mine", make_step(), store)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask_page(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def ask(server: PageServer, path: str, host: str = "") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection.getresponse()


def test_the_page_follows_the_log(server: PageServer, store: Store) -> None:
    assert server.address == f"http://127.0.0.1:{server.server_port}/"
    answer = ask(server, "/")
    assert (answer.status, answer.headers["X-State"]) == (200, "waiting")
    assert "It has not begun" in answer.read().decode()
    key = make_step().key
    store.log_path(key, "training").parent.mkdir()
    with store.lock(key, "training"):
        for step in (1, 2):
            lines = [make_line(n) for n in range(1, step + 1)]
            store.log_path(key, "training").write_text(make_log(*lines))
            answer = ask(server, "/run")
            assert answer.headers["X-State"] == "training"
            assert f"{step} of 100" in answer.read().decode()


def test_nothing_else_is_served_and_to_nobody_else(server: PageServer) -> None:
    assert ask(server, "/etc/passwd").status == 404
    assert ask(server, "/", host="evil.example").status == 403
    assert ask(server, "/", host=f"localhost:{server.server_port}").status == 200
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_a_damaged_store_is_told_on_the_page(server: PageServer, store: Store) -> None:
    (store.path_of(make_step().key, "training")).mkdir()
    answer = ask(server, "/")
    assert answer.status == 500
    assert "an artifact in the store is damaged" in answer.read().decode()
