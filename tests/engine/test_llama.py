"""The compiled llama.cpp: its programs, its converter and its binding are of one build."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.convert

_LLAMA = Path(sys.prefix) / "llama"


@pytest.mark.parametrize(
    "name", ["llama-bench", "llama-imatrix", "llama-perplexity", "llama-quantize", "llama-server"]
)
def test_a_program_finds_its_libraries(name: str) -> None:
    told = subprocess.run(
        [_LLAMA / "bin" / name, "--help"], capture_output=True, text=True, env={}, check=False
    )
    assert "error while loading" not in told.stderr
    assert "usage" in (told.stdout + told.stderr).lower()


def test_the_binding_uses_the_same_libraries() -> None:
    import llama_cpp

    llama_cpp.llama_backend_init()
    maps = Path("/proc/self/maps").read_text().splitlines()
    loaded = {line.split()[-1] for line in maps if "/libllama.so" in line or "/libggml" in line}
    assert loaded
    assert {Path(path).parent for path in loaded} == {(_LLAMA / "lib").resolve()}


def test_no_library_names_the_place_where_it_was_compiled() -> None:
    place = str(_LLAMA.resolve()).encode()
    files = [*(_LLAMA / "lib").iterdir(), *(_LLAMA / "bin").iterdir()]
    assert [file.name for file in files if place in file.read_bytes()] == []


def test_the_vendored_converter_knows_the_architecture() -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.path[:0] = sys.argv[1:];"
            "from conversion import get_model_class;"
            "print(get_model_class('Ministral3ForCausalLM').__name__)",
            _LLAMA / "src",
            _LLAMA / "src" / "gguf-py",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "Mistral3Model"


def test_the_licence_comes_along() -> None:
    assert "MIT License" in (_LLAMA / "src" / "LICENSE").read_text()
