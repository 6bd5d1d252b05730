"""What holds for every test: its tier, no network, the same examples each time."""

import ipaddress
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.tiers import HOST, TIERS, read_tier

# No deadline: the machine is shared. No database: a run depends on no earlier one.
settings.register_profile("same-each-time", deadline=None, derandomize=True, database=None)
settings.load_profile("same-each-time")


class NetworkInTestError(RuntimeError):
    """A test reached for another machine."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tier", choices=TIERS, default=HOST, help="whose packages are installed")
    parser.addoption("--counts", type=Path, help="where to write the numbers of outcomes (JSON)")


def pytest_configure(config: pytest.Config) -> None:
    """Drop the other tiers' files from the command line: pytest reads what is named there."""
    config.args[:] = [word for word in config.args if not _is_elsewhere(_find_file(word), config)]


def pytest_sessionstart() -> None:
    """Let an interrupt interrupt: a shell's background jobs start with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the other tiers' files unread; None leaves the answer to pytest."""
    return True if _is_elsewhere(collection_path, config) else None


def _is_elsewhere(path: Path, config: pytest.Config) -> bool:
    is_test_file = path.name.startswith("test_") and path.suffix == ".py" and path.is_file()
    return is_test_file and read_tier(path) != config.getoption("tier")


def _find_file(word: str) -> Path:
    return Path(word.partition("::")[0])


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write how many tests had which outcome, for the sum over the tiers."""
    path = session.config.getoption("counts")
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if path is not None and reporter is not None:
        counts = {outcome: len(reports) for outcome, reports in reporter.stats.items()}
        path.write_text(json.dumps(counts), encoding="utf-8")


@pytest.fixture(autouse=True)
def forbid_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sockets reach this machine alone."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _guard_connect(getattr(socket.socket, name)))
    monkeypatch.setattr(socket, "getaddrinfo", _guard_lookup(socket.getaddrinfo))


def _guard_connect(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _require_loopback(address[0])
        return connect(self, address)

    return guarded


def _guard_lookup(lookup: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: str | None, *arguments: Any, **keywords: Any) -> Any:
        _require_loopback(host)
        return lookup(host, *arguments, **keywords)

    return guarded


def _require_loopback(host: str | None) -> None:
    if host in (None, "", "localhost"):
        return
    try:
        local = ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        local = False
    if not local:
        raise NetworkInTestError(f"a test reached for {host}; tests have no network")
