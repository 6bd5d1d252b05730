"""A virtual environment filled from hash-locked files: every byte is named before it is fetched."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.progress import Progress
from pipeline.engine import process
from pipeline.engine.environment import find_interpreter
from pipeline.engine.image import PYTHON_VERSION
from pipeline.errors import HostError

# Where the CPU wheels of torch lie for everybody; asked only when pip, as configured, has none.
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_NOT_FOUND = "No matching distribution found for torch=="
# Settings of the caller's pip that would put packages elsewhere or change which are taken.
_FOREIGN = frozenset(
    {
        "PIP_CONSTRAINT",
        "PIP_NO_BINARY",
        "PIP_ONLY_BINARY",
        "PIP_PREFIX",
        "PIP_REQUIREMENT",
        "PIP_TARGET",
        "PIP_USER",
        "PYTHONHOME",
        "PYTHONPATH",
    }
)


def make_venv(path: Path, locks: Sequence[Path], *, title: str, log_path: Path) -> None:
    """Make a virtual environment at `path` that holds exactly the locked packages, and pip."""
    _run([find_interpreter().path, "-m", "venv", path], title=title, log_path=log_path)
    for lock in locks:
        install(path, lock, title=title, log_path=log_path)
    compile_bytecode(path, find_site_packages(path), log_path=log_path)


def install(path: Path, lock: Path, *, title: str, log_path: Path) -> None:
    """Install a lock's wheels, as this user's pip is configured.

    Raises HostError when one cannot be had or is not the locked file.
    """
    argv: list[str | Path] = [
        *make_pip_argv(path, "install"),
        *("--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:", "-r"),
        lock,
    ]
    progress = Progress(f"{title}: {lock.name}", count_packages(lock))
    code = _run_pip(argv, log_path=log_path, progress=progress)
    if code != 0 and _NOT_FOUND in process.read_last_lines(log_path):
        index = os.environ.get("TRISTILL_TORCH_INDEX", _TORCH_INDEX)
        code = _run_pip([*argv, "--extra-index-url", index], log_path=log_path, progress=progress)
    progress.close()
    if code != 0:
        raise _make_error(f"pip could not install {lock.name}", path, log_path)


def compile_bytecode(venv: Path, tree: Path, *, log_path: Path) -> None:
    """Compile a tree on all cores: without it each start of a stage takes 10 seconds more.

    A file that does not compile (packages ship such templates) is left to its importer.
    """
    options = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash")
    process.run(
        [venv / "bin" / "python", "-m", "compileall", *options, tree],
        log_path=log_path,
        environment=make_host_environment(),
    )


def count_packages(lock: Path) -> int:
    """Return how many packages a lock names."""
    return sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())


def find_site_packages(venv: Path) -> Path:
    """Return where the packages of a virtual environment lie."""
    return venv / "lib" / f"python{PYTHON_VERSION}" / "site-packages"


def make_pip_argv(venv: Path, verb: str) -> list[str | Path]:
    """Return the start of a pip command; the log gets whole lines and no bars."""
    options = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
    return [venv / "bin" / "python", "-m", "pip", verb, *options]


def make_host_environment() -> dict[str, str]:
    """Return this process's variables without those that would lead pip or Python astray."""
    return {name: value for name, value in os.environ.items() if name not in _FOREIGN}


def _run_pip(argv: Sequence[str | Path], *, log_path: Path, progress: Progress) -> int:
    collected = 0

    def count(line: str) -> None:
        nonlocal collected
        # The second: a wheel that lies on this machine.
        if line.startswith(("Collecting ", "Processing ")):
            collected += 1
            progress.show(collected)

    return process.run(argv, log_path=log_path, environment=make_host_environment(), on_line=count)


def _run(argv: Sequence[str | Path], *, title: str, log_path: Path) -> None:
    if process.run(argv, log_path=log_path, environment=make_host_environment()) != 0:
        raise _make_error(title, Path(argv[-1]), log_path)


def _make_error(what: str, path: Path, log_path: Path) -> HostError:
    free_bytes = shutil.disk_usage(log_path.parent).free
    return HostError(
        what,
        on=str(path),
        why=process.read_last_lines(log_path),
        then=f"read {log_path} ({free_bytes / 1e9:.1f} GB are free there), then run this again",
    )
