"""What a Dockerfile's build stage makes is what the virtual-environment engine makes, less pip."""

import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine import llama
from pipeline.engine.image import IMAGES, find_variant
from pipeline.engine.install import install_image, install_llama


@pytest.fixture
def compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a llama.cpp that took no time to compile."""

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1763683200")

    def build(path: Path, scratch: Path, *, title: str, log_path: Path) -> None:
        # Else ggml would leave out AVX2.
        assert "SOURCE_DATE_EPOCH" not in os.environ
        for folder in ("bin", "lib", "wheel", "src/conversion/__pycache__"):
            (path / folder).mkdir(parents=True)
        (path / "bin" / "llama-quantize").write_text("program")
        (path / "lib" / "libllama.so.0").write_text("library")
        (path / "lib" / "libllama.so").symlink_to("libllama.so.0")
        (path / "src" / "conversion" / "__init__.py").write_text("pass\n")
        (path / "src" / "conversion" / "__pycache__" / "stale.pyc").write_text("")
        _write_binding(path / "wheel")

    monkeypatch.setattr(llama, "_build", build)
    monkeypatch.setattr(llama, "_require_compilers", lambda: None)
    path = tmp_path / "opt" / "llama"
    install_llama(path)
    return path


def _write_binding(folder: Path) -> None:
    information = "llama_cpp_python-1.dist-info"
    with zipfile.ZipFile(folder / "llama_cpp_python-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llama_cpp/__init__.py", "")
        wheel.writestr("llama_cpp/lib/x", "")
        metadata = "Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: 1\n"
        wheel.writestr(f"{information}/METADATA", metadata)
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        wheel.writestr(f"{information}/WHEEL", tag)
        wheel.writestr(f"{information}/RECORD", "")


def test_the_compiled_tree_lies_where_it_was_asked_for(compiled: Path) -> None:
    assert sorted(path.name for path in compiled.iterdir()) == ["bin", "lib", "src", "wheel"]
    assert [path.name for path in compiled.parent.iterdir()] == ["llama"]


def test_an_image_holds_llama_and_its_binding_and_no_installer(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = tmp_path / "prefix"
    install_image(replace(IMAGES["convert"], locks=()), prefix, compiled=compiled)
    packages = prefix / "lib" / "python3.11" / "site-packages"
    assert sorted(path.name for path in packages.iterdir() if "dist-info" in path.name) == [
        "llama_cpp_python-1.dist-info"
    ]
    assert not list((prefix / "bin").glob("pip*"))
    library = packages / "llama_cpp" / "lib" / "libllama.so"
    assert library.resolve() == prefix / "llama" / "lib" / "libllama.so.0"
    assert not list((prefix / "llama").rglob("stale.pyc"))
    assert list((prefix / "llama" / "src" / "conversion").rglob("__init__.*.pyc"))
    assert sorted(path.name for path in (prefix / "llama").iterdir()) == ["bin", "lib", "src"]


def test_variants_differ_by_torch_alone() -> None:
    cpu, cuda = (find_variant("train", each) for each in ("cpu", "cuda"))
    assert (cpu.locks, cuda.locks) == (
        ("torch-cpu.lock", "train.lock"),
        ("torch-cuda.lock", "train.lock"),
    )
    assert cpu.variables == cuda.variables
