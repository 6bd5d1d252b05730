"""`python -m pipeline.engine.install`: fill a directory inside a Dockerfile's build stage.

It runs the virtual-environment engine's own steps, so that a container and a virtual environment
hold the same packages. A directory made from the same locks has the same bytes:
- `llama DIR`: llama.cpp as `llama.py` describes it: `bin/`, `lib/`, `src/`, `wheel/`
- `image NAME DIR [--llama DIR] [--accelerator A]`: the image's prefix, without pip and without the
  binding's wheel

The Dockerfiles name what runs here, file by file, in `.dockerignore`.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.engine import llama, packages, process
from pipeline.engine.image import ACCELERATORS, CPU, IMAGES, LOCKS, Image, find_variant
from pipeline.errors import HostError, TristillError
from pipeline.log import start_log

_LLAMA_FOLDERS = ("bin", "lib", "src")
# What `python -m venv` puts into each environment.
_INSTALLERS = ("pip", "setuptools")


def install_llama(path: Path) -> None:
    """Compile the pinned llama.cpp into `path`."""
    # Where it is set, ggml leaves out AVX2 and all else that GGML_NATIVE=OFF keeps.
    os.environ.pop("SOURCE_DATE_EPOCH", None)
    scratch = path.with_name(f"{path.name}.scratch")
    made = llama.prepare(scratch, title="llama.cpp")
    path.mkdir(parents=True, exist_ok=True)
    for folder in (*_LLAMA_FOLDERS, "wheel"):
        (made / folder).rename(path / folder)
    shutil.rmtree(scratch)


def install_image(image: Image, path: Path, *, compiled: Path | None) -> None:
    """Make the image's prefix at `path`; `compiled` is what `install_llama` made."""
    with tempfile.TemporaryDirectory() as scratch:
        title, log_path = image.name, Path(scratch) / "log"
        locks = [LOCKS / lock for lock in image.locks]
        packages.make_venv(path, locks, title=title, log_path=log_path)
        if image.llama and compiled:
            _copy_llama(compiled, path, log_path=log_path)
        if image.binding and compiled:
            llama.install_binding(path, compiled, title=title, log_path=log_path)
            binding = packages.find_site_packages(path) / "llama_cpp"
            packages.compile_bytecode(path, binding, log_path=log_path)
        _remove_installers(path, locks, log_path=log_path)


def _copy_llama(compiled: Path, path: Path, *, log_path: Path) -> None:
    """Copy the compiled tree; its bytecode names the place that it was made for."""
    for folder in _LLAMA_FOLDERS:
        shutil.copytree(
            compiled / folder,
            path / "llama" / folder,
            symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    packages.compile_bytecode(path, path / "llama" / "src", log_path=log_path)


def _remove_installers(path: Path, locks: Sequence[Path], *, log_path: Path) -> None:
    """Remove what no lock names: an image is never installed into."""
    locked = {line.partition("==")[0] for lock in locks for line in lock.read_text().splitlines()}
    names = [name for name in _INSTALLERS if name not in locked]
    argv: list[str | Path] = [path / "bin" / "python", "-m", "pip", "uninstall", "--yes", *names]
    if process.run(argv, log_path=log_path, environment=packages.make_host_environment()) != 0:
        raise HostError(
            "pip could not be removed",
            on=str(path),
            why=process.read_last_lines(log_path),
            then="build the image again",
        )


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline.engine.install")
    what = parser.add_subparsers(dest="what", required=True)
    of_llama = what.add_parser("llama")
    of_llama.add_argument("path", type=Path, metavar="DIR")
    of_image = what.add_parser("image")
    of_image.add_argument("name", choices=sorted({each.kind for each in IMAGES.values()}))
    of_image.add_argument("path", type=Path, metavar="DIR")
    of_image.add_argument("--llama", type=Path, metavar="DIR")
    of_image.add_argument("--accelerator", choices=ACCELERATORS, default=CPU)
    return parser


def main(argv: Sequence[str]) -> int:
    """Fill the directory that the command line names; return the exit code."""
    arguments = _make_parser().parse_args(argv)
    start_log()
    # An interpreter that starts while packages come in would leave bytecode with a time in it.
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    try:
        if arguments.what == "llama":
            install_llama(arguments.path)
        else:
            image = find_variant(arguments.name, arguments.accelerator)
            install_image(image, arguments.path, compiled=arguments.llama)
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
