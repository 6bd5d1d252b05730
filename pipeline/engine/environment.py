"""Where environments lie, which Python they use, and when one is whole.

A directory is named by the digest of what makes it, so that a change makes a new one and several
checkouts share one. A virtual environment cannot be renamed into place (its scripts hold its path);
so it is made in its final place under a kernel lock, and `complete.json`, written last, makes it
trusted. One without that file is removed and made anew.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pipeline.artifact.file_lock import file_lock
from pipeline.artifact.key import make_digest
from pipeline.engine.image import PYTHON_VERSION
from pipeline.errors import HostError

_COMPLETE = "complete.json"
_ASK_INTERPRETER = (
    "import ensurepip, json, sys, venv; "
    "print(json.dumps([sys.executable, list(sys.version_info), sys.base_prefix]))"
)


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python that virtual environments are made with."""

    path: str
    version: tuple[int | str, ...]
    base_prefix: str


@dataclass(frozen=True, kw_only=True)
class Environment:
    """One directory to be made: its name, and the document whose digest is in the name."""

    name: str
    document: dict[str, object]

    def find(self, envs_dir: Path) -> Path:
        """Return the directory, whether or not it exists."""
        return envs_dir / f"{self.name}-{make_digest(self.document)[:16]}"

    def is_complete(self, envs_dir: Path) -> bool:
        """Return whether the directory can be used."""
        return (self.find(envs_dir) / _COMPLETE).is_file()

    def find_log(self, envs_dir: Path) -> Path:
        """Return the file that tells how the directory was made."""
        return envs_dir / "logs" / f"{self.find(envs_dir).name}.log"


def read_envs_dir() -> Path:
    """Return the directory of all environments: TRISTILL_ENVS, or one in the user's cache."""
    if moved := os.environ.get("TRISTILL_ENVS"):
        return Path(moved).expanduser().resolve()
    cache_dir = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache_dir).resolve() / "tristill" / "envs"


def make_once(environment: Environment, envs_dir: Path, make: Callable[[Path, Path], None]) -> Path:
    """Return the complete directory, after `make(directory, log)` if it was not there."""
    path = environment.find(envs_dir)
    if environment.is_complete(envs_dir):
        return path
    with file_lock(envs_dir / "locks" / path.name, waiting_for=f"environment {path.name}"):
        if not environment.is_complete(envs_dir):
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            log_path = environment.find_log(envs_dir)
            log_path.unlink(missing_ok=True)
            make(path, log_path)
            _mark_complete(path, environment.document)
    return path


def _mark_complete(path: Path, document: dict[str, object]) -> None:
    """Write the mark only after everything else is on the disk."""
    os.sync()
    partial = path / f"{_COMPLETE}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(document, file, indent=2, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path / _COMPLETE)


@cache
def find_interpreter() -> Interpreter:
    """Return a Python of the images' version that can make virtual environments.

    Raises HostError when this host has none.
    """
    wanted = tuple(int(part) for part in PYTHON_VERSION.split("."))
    here = sys.executable if sys.version_info[:2] == wanted else None
    path = here or shutil.which(f"python{PYTHON_VERSION}")
    if path is None:
        raise _make_interpreter_error(
            f"python{PYTHON_VERSION}", f"no Python {PYTHON_VERSION} on PATH"
        )
    answer = subprocess.run(
        [path, "-c", _ASK_INTERPRETER], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        why = (answer.stderr.strip().splitlines() or ["it does not start"])[-1]
        raise _make_interpreter_error(path, why)
    executable, version, base_prefix = json.loads(answer.stdout)
    return Interpreter(path=executable, version=tuple(version), base_prefix=base_prefix)


def make_interpreter_document() -> dict[str, object]:
    """Return what a virtual environment takes from this host."""
    interpreter = asdict(find_interpreter())
    del interpreter["path"]
    return {**interpreter, "machine": platform.machine(), "libc": platform.libc_ver()}


def _make_interpreter_error(path: str, why: str) -> HostError:
    return HostError(
        "the images' Python cannot make virtual environments",
        on=path,
        why=why,
        then=f"apt-get install python{PYTHON_VERSION}-venv (or pyenv install {PYTHON_VERSION})",
    )
