"""An environment is made once, whole or not at all, whoever asks for it at the same time."""

import shutil
import sys
import threading
from pathlib import Path

import pytest

from pipeline.engine import environment as environments
from pipeline.engine.environment import Environment, find_interpreter, make_once, read_envs_dir
from pipeline.errors import HostError

_ENVIRONMENT = Environment(name="convert", document={"lock": "abc"})


def test_the_name_changes_with_the_document(tmp_path: Path) -> None:
    other = Environment(name="convert", document={"lock": "abd"})
    paths = {each.find(tmp_path) for each in (_ENVIRONMENT, other)}
    assert len(paths) == 2
    assert all(path.name.startswith("convert-") and len(path.name) == 24 for path in paths)


def test_a_complete_environment_is_not_made_again(tmp_path: Path) -> None:
    made: list[Path] = []
    for _ in range(2):
        path = make_once(_ENVIRONMENT, tmp_path, lambda path, log: made.append(path))
    assert made == [path]
    assert _ENVIRONMENT.is_complete(tmp_path)


def test_a_broken_off_environment_is_removed_and_made_anew(tmp_path: Path) -> None:
    def break_off(path: Path, log_path: Path) -> None:
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(_ENVIRONMENT, tmp_path, break_off)
    assert not _ENVIRONMENT.is_complete(tmp_path)
    path = make_once(_ENVIRONMENT, tmp_path, lambda path, log: (path / "whole").touch())
    assert sorted(file.name for file in path.iterdir()) == ["complete.json", "whole"]


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    made: list[Path] = []
    entered = threading.Event()

    def make(path: Path, log_path: Path) -> None:
        made.append(path)
        entered.set()
        other.join(0.2)

    other = threading.Thread(
        target=lambda: (entered.wait(), make_once(_ENVIRONMENT, tmp_path, make))
    )
    other.start()
    make_once(_ENVIRONMENT, tmp_path, make)
    other.join()
    assert len(made) == 1


def test_the_directory_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRISTILL_ENVS", str(tmp_path / "here"))
    assert read_envs_dir() == tmp_path / "here"
    monkeypatch.delenv("TRISTILL_ENVS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert read_envs_dir() == tmp_path / "tristill" / "envs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_envs_dir() == tmp_path / ".cache" / "tristill" / "envs"


def test_the_interpreter_has_the_images_version() -> None:
    assert find_interpreter().version[:2] == (3, 11)
    assert Path(find_interpreter().path).is_file()


def test_a_host_without_the_images_python_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(environments, "PYTHON_VERSION", "2.9")
    with pytest.raises(HostError, match=r"apt-get install python2\.9-venv"):
        find_interpreter.__wrapped__()


def test_a_python_that_cannot_make_environments_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho \"No module named 'ensurepip'\" >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(environments, "PYTHON_VERSION", "2.9")
    monkeypatch.setattr(shutil, "which", lambda name: str(fake))
    with pytest.raises(HostError, match="No module named 'ensurepip'"):
        find_interpreter.__wrapped__()
    assert sys.version_info[:2] != (2, 9)
