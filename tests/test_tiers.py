"""Each test file runs in one tier, found without importing it."""

import socket
from pathlib import Path

import pytest

from tests.conftest import NetworkInTestError
from tests.tiers import find_tiers, read_tier


def test_a_mark_names_the_tier(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("import torch\n\npytestmark = pytest.mark.train\n")
    (tmp_path / "test_b.py").write_text("def test() -> None: ...\n")
    assert read_tier(tmp_path / "test_a.py") == "train"
    assert read_tier(tmp_path / "test_b.py") == "host"
    assert find_tiers([tmp_path]) == ["host", "train"]
    assert find_tiers([tmp_path / "test_a.py"]) == ["train"]


def test_other_machines_are_out_of_reach() -> None:
    with pytest.raises(NetworkInTestError, match="reached for pypi.org"):
        socket.create_connection(("pypi.org", 443))
    with socket.socket() as plain, pytest.raises(NetworkInTestError, match="203.0.113.1"):
        plain.connect(("203.0.113.1", 80))


def test_this_machine_is_in_reach() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
