"""The one pinned llama.cpp: its converter, its gguf-py and its tools, as this environment has them.

They lie under `llama/` in the environment's prefix. The gguf package of the registry is another
version and fails with this converter, so the vendored one comes first.
"""

import importlib
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import StageError
from pipeline.log import say


def import_gguf() -> ModuleType:
    """Return llama.cpp's own gguf package."""
    # It warns of template forms that it does not read; what matters of them is checked in the file.
    logging.getLogger("gguf").setLevel(logging.ERROR)
    return _import("gguf", "gguf-py")


def find_file_type(name: str) -> int:
    """Return the number that general.file_type holds for a file type."""
    types = import_gguf().LlamaFileType
    return int(types.ALL_F32 if name == "F32" else types[f"MOSTLY_{name}"])


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a GGUF, rows first."""
    return list_shapes(import_gguf().GGUFReader(path))


def list_shapes(reader: Any) -> dict[str, tuple[int, ...]]:
    """Return the same of an open GGUF: to open one with a large vocabulary takes seconds."""
    # A GGUF names the innermost dimension first.
    return {each.name: tuple(int(size) for size in reversed(each.shape)) for each in reader.tensors}


def import_conversion() -> ModuleType:
    """Return llama.cpp's converter; it says what it does only when it warns of a fault."""
    import_gguf()
    module = _import("conversion", ".")
    logging.getLogger("hf-to-gguf").setLevel(logging.ERROR)
    return module


def find_model_class(architecture: str) -> Any:
    """Return the converter's class for an architecture of config.json.

    Raises StageError when the converter has none.
    """
    try:
        return import_conversion().get_model_class(architecture)
    except NotImplementedError:
        raise StageError(
            "llama.cpp does not know this model",
            on=f"config.json, architectures {architecture}",
            why="the pinned converter has no class for it",
            then="use a base whose architecture the pinned llama.cpp supports",
        ) from None


def run_tool(name: str, *arguments: str, directory: Path | None = None) -> None:
    """Run one of llama.cpp's tools to its end, in the directory: some write down paths as given.

    Raises StageError with the last lines it wrote when it fails.
    """
    say("+ " + " ".join([name, *arguments]))
    command = [str(_prefix() / "bin" / name), *arguments]
    done = subprocess.run(
        command,
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        raise StageError(
            f"{name} failed",
            on=" ".join(arguments),
            why=" | ".join(done.stdout.splitlines()[-5:]) or f"exit code {done.returncode}",
            then="read its last lines above; a full disk is the usual reason",
        )


def _prefix() -> Path:
    return Path(sys.prefix) / "llama"


def _import(name: str, folder: str) -> ModuleType:
    path = str(_prefix() / "src" / folder)
    if path not in sys.path:
        sys.path.insert(0, path)
    return importlib.import_module(name)
