"""The venv engine makes what is missing, and runs a stage as if it were in a container."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.engine import llama, packages, venv
from pipeline.engine.image import IMAGES
from pipeline.errors import CapacityError, HostError


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace what takes minutes; return the names of what was made."""
    names: list[str] = []

    def make_venv(path: Path, locks: list[Path], *, title: str, log_path: Path) -> None:
        names.append(path.name.partition("-")[0])
        packages.find_site_packages(path).joinpath("llama_cpp").mkdir(parents=True)

    def build(path: Path, scratch: Path, *, title: str, log_path: Path) -> None:
        names.append("llama")
        (path / "lib").mkdir()

    monkeypatch.setattr(packages, "make_venv", make_venv)
    monkeypatch.setattr(llama, "_build", build)
    monkeypatch.setattr(llama, "_require_compilers", lambda: None)
    monkeypatch.setattr(llama, "_run", lambda argv, **_: None)
    return names


def test_what_is_missing_is_made_once(tmp_path: Path, made: list[str]) -> None:
    venv.prepare({"train"}, envs_dir=tmp_path)
    assert made == ["train"]
    venv.prepare({"train", "serve", "convert"}, envs_dir=tmp_path)
    assert made == ["train", "llama", "convert", "serve"]
    venv.prepare(IMAGES.keys() - {"test", "train-cuda", "serve-cuda"}, envs_dir=tmp_path)
    assert made == ["train", "llama", "convert", "serve"]


def test_what_only_a_container_holds_is_refused_before_the_work(
    tmp_path: Path, made: list[str]
) -> None:
    with pytest.raises(HostError, match=r'accelerator = "cpu".*\[serve\]'):
        venv.prepare({"train-cuda", "serve-cuda"}, envs_dir=tmp_path)
    assert made == []


def test_llama_lies_at_the_prefix_and_the_binding_finds_its_libraries(
    tmp_path: Path, made: list[str]
) -> None:
    venv.prepare({"convert"}, envs_dir=tmp_path)
    prefix = venv.python_of("convert", tmp_path).parents[1]
    library = venv.site_packages_of("convert", tmp_path) / "llama_cpp" / "lib"
    assert library.resolve() == (prefix / "llama" / "lib").resolve()
    assert (prefix / "llama").resolve().parent == tmp_path
    assert not (prefix / "llama" / "build").exists()


def test_a_full_disk_is_said_before_the_work(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CapacityError, match=r"1\.0 GB free"):
        venv.prepare({"train"}, envs_dir=tmp_path)
    assert made == []


def test_a_host_without_a_compiler_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="apt-get install build-essential"):
        llama.prepare(tmp_path / "envs", title="llama.cpp")
