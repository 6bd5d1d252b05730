"""A fake host, whose environments lie in a directory of its own."""

from pathlib import Path

import pytest

from tests.doctor.fake_host import FakeHost


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    monkeypatch.setenv("TRISTILL_ENVS", str(tmp_path / "envs"))
    return FakeHost(tmp_path)
