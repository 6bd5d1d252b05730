"""A server is ready inside the block, gone after it, and says why when it dies."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.serve.server import llama_server
from tests.serve.installed_fake import install_fake_server, write_behaviour

pytestmark = pytest.mark.serve


def is_there(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def test_it_is_ready_inside_and_gone_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_server(tmp_path, monkeypatch)
    model = write_behaviour(tmp_path / "model.gguf")
    with llama_server(model, context=64, parallel=1, threads=1) as base_url:
        assert base_url.startswith("http://127.0.0.1:")
        assert is_there(base_url)
        with llama_server(model, context=64, parallel=1, threads=1) as another:
            assert another != base_url
    assert not is_there(base_url)
    assert not is_there(another)


def test_it_is_stopped_when_the_block_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_server(tmp_path, monkeypatch)
    model = write_behaviour(tmp_path / "model.gguf")
    with (
        pytest.raises(ZeroDivisionError),
        llama_server(model, context=64, parallel=1, threads=1) as base_url,
    ):
        raise ZeroDivisionError
    assert not is_there(base_url)


def test_a_server_that_dies_says_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_server(tmp_path, monkeypatch)
    model = write_behaviour(tmp_path / "model.gguf", dies="failed to allocate 12 GiB")
    with (
        pytest.raises(StageError, match="exit code 1") as error,
        llama_server(model, context=64, parallel=1, threads=1),
    ):
        pass
    assert "failed to allocate 12 GiB" in str(error.value)


def test_a_server_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_server(tmp_path, monkeypatch)
    model = write_behaviour(tmp_path / "model.gguf", hangs=True)
    with (
        pytest.raises(StageError, match="not ready in time"),
        llama_server(model, context=64, parallel=1, threads=1, start_s=0.5),
    ):
        pass


def test_a_missing_program_is_an_error_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with (
        pytest.raises(StageError, match="cannot be started"),
        llama_server(tmp_path / "model.gguf", context=64, parallel=1, threads=1),
    ):
        pass


def test_the_real_server_refuses_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"no GGUF at all")
    with (
        pytest.raises(StageError, match="does not serve this file") as error,
        llama_server(tmp_path / "model.gguf", context=64, parallel=1, threads=1),
    ):
        pass
    assert "exit code 1" in error.value.why
