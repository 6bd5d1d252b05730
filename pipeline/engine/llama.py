"""llama.cpp, compiled once from the one hash-locked source, for every image that needs it.

`<envs>/llama-<digest>/` holds
- `bin/`: llama-server, llama-quantize, llama-imatrix, llama-perplexity, llama-bench
- `lib/`: the shared libraries, found from `bin/` and from `lib/` by a relative path; on x86-64 also
  libkquants.so, our kernel for FP8 and for the types that ggml is slow at
- `src/`: the converter and gguf-py, as vendored
- `wheel/`: the Python binding without a library of its own

CMake, ninja and the binding's build backend come from a lock too: the host gives a C and a C++
compiler, nothing else. Nothing is fetched while it is compiled.
"""

import os
import platform
import re
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.progress import Progress
from pipeline.engine import packages, process
from pipeline.engine.environment import Environment, make_interpreter_document, make_once
from pipeline.engine.image import (
    KERNEL_FLAGS,
    KERNEL_SOURCES,
    LLAMA_BUILD_LOCK,
    LLAMA_FLAGS,
    LLAMA_LOCK,
    LOCKS,
    make_files_document,
    make_llama_document,
)
from pipeline.errors import HostError
from pipeline.log import say

_TOOLS = ("llama-bench", "llama-imatrix", "llama-perplexity", "llama-quantize", "llama-server")
_SOURCES = (
    "LICENSE",
    "conversion",
    "convert_hf_to_gguf.py",
    "convert_lora_to_gguf.py",
    "gguf-py",
    "models/templates",
)
_NINJA_COUNT = re.compile(r"\[(\d+)/(\d+)\]")


def make_environment() -> Environment:
    """Return the directory that the pinned llama.cpp lies in."""
    return Environment(
        name="llama",
        document={
            "llama": make_llama_document(),
            "host": make_interpreter_document(),
            "kernel": list(KERNEL_FLAGS),
            "source": make_files_document(
                LOCKS / LLAMA_BUILD_LOCK, Path(__file__), *KERNEL_SOURCES
            ),
        },
    )


def prepare(envs_dir: Path, *, title: str) -> Path:
    """Return the directory of the pinned llama.cpp, compiled if it is not there yet.

    Raises HostError when there is no compiler or the build fails.
    """

    def make(path: Path, log_path: Path) -> None:
        _require_compilers()
        scratch = path / "build"
        scratch.mkdir()
        _build(path, scratch, title=title, log_path=log_path)
        shutil.rmtree(scratch)

    return make_once(make_environment(), envs_dir, make)


def install_binding(venv: Path, llama: Path, *, title: str, log_path: Path) -> None:
    """Install the Python binding and let it find the libraries at `<venv>/llama/lib`."""
    argv = [*packages.make_pip_argv(venv, "install"), "--no-deps", "--no-index", "--no-compile"]
    _run([*argv, *(llama / "wheel").glob("*.whl")], title=title, log_path=log_path)
    library = packages.find_site_packages(venv) / "llama_cpp" / "lib"
    shutil.rmtree(library, ignore_errors=True)
    library.symlink_to(os.path.relpath(venv / "llama" / "lib", library.parent))


def _require_compilers() -> None:
    missing = [name for name in ("cc", "c++") if shutil.which(name) is None]
    if missing:
        raise HostError(
            "llama.cpp cannot be compiled",
            on="this host",
            why=f"no compiler on PATH: {', '.join(missing)}",
            then="apt-get install build-essential",
        )


def _build(path: Path, scratch: Path, *, title: str, log_path: Path) -> None:
    say(f"{title}: tools to compile it ...")
    tools = scratch / "tools"
    lock = LOCKS / LLAMA_BUILD_LOCK
    packages.make_venv(tools, [lock], title=title, log_path=log_path)
    say(f"{title}: source ...")
    sdist = _fetch(tools, scratch, title=title, log_path=log_path)
    source = sdist / "vendor" / "llama.cpp"
    _compile(source, scratch / "out", tools=tools, title=title, log_path=log_path)
    say(f"{title}: Python binding ...")
    _build_binding(sdist, path / "wheel", tools=tools, title=title, log_path=log_path)
    _copy_programs(scratch / "out" / "bin", path)
    if platform.machine() == "x86_64":
        kernel = path / "lib" / "libkquants.so"
        _run(["cc", *KERNEL_FLAGS, KERNEL_SOURCES[0], "-o", kernel], title=title, log_path=log_path)
    _copy_sources(source, path / "src")
    packages.compile_bytecode(tools, path / "src", log_path=log_path)


def _fetch(tools: Path, scratch: Path, *, title: str, log_path: Path) -> Path:
    """Return the unpacked source; pip checks its hash."""
    argv: list[str | Path] = [
        *packages.make_pip_argv(tools, "download"),
        *("--no-deps", "--require-hashes", "--no-binary", ":all:", "--no-build-isolation"),
        *("--dest", scratch / "sdist", "-r", LOCKS / LLAMA_LOCK),
    ]
    _run(argv, title=title, log_path=log_path, environment=_make_variables(tools))
    (archive_path,) = (scratch / "sdist").glob("*.tar.gz")
    with tarfile.open(archive_path) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(scratch / "source")
    (sdist,) = (scratch / "source").iterdir()
    return sdist


def _compile(source: Path, out: Path, *, tools: Path, title: str, log_path: Path) -> None:
    variables = _make_variables(tools)
    mapped = f"-ffile-prefix-map={source}=llama.cpp"
    configure: list[str | Path] = [
        *(tools / "bin" / "cmake", "-S", source, "-B", out, "-G", "Ninja", *LLAMA_FLAGS),
        *(f"-DCMAKE_C_FLAGS={mapped}", f"-DCMAKE_CXX_FLAGS={mapped}"),
        # Else ggml's version would be that of a repository around the directory, if any.
        *("-DGIT_EXE=", "-DGGML_BUILD_COMMIT=pinned"),
        # One relative path serves the programs in bin/ and the libraries in lib/.
        *("-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN/../lib"),
    ]
    _run(configure, title=title, log_path=log_path, environment=variables)
    cores = len(os.sched_getaffinity(0))
    ninja: list[str | Path] = [tools / "bin" / "ninja", "-C", out, "-j", str(cores), *_TOOLS]
    progress = _NinjaProgress(f"{title}: compiling on {cores} cores")
    code = process.run(ninja, log_path=log_path, environment=variables, on_line=progress.read)
    progress.close()
    if code != 0:
        raise _make_error(title, log_path)


class _NinjaProgress:
    """Reads ninja's [n/N]."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._progress: Progress | None = None

    def read(self, line: str) -> None:
        if count := _NINJA_COUNT.match(line):
            done, total = int(count[1]), int(count[2])
            self._progress = self._progress or Progress(self._title, total)
            self._progress.show(done)

    def close(self) -> None:
        if self._progress:
            self._progress.close()


def _build_binding(sdist: Path, out: Path, *, tools: Path, title: str, log_path: Path) -> None:
    """Build the binding's wheel without compiling llama.cpp a second time."""
    argv = [*packages.make_pip_argv(tools, "wheel"), "--no-deps", "--no-build-isolation"]
    variables = _make_variables(tools) | {"CMAKE_ARGS": "-DLLAMA_BUILD=OFF"}
    _run(
        [*argv, "--no-index", "--wheel-dir", out, sdist],
        title=title,
        log_path=log_path,
        environment=variables,
    )


def _copy_programs(built: Path, path: Path) -> None:
    for folder in ("bin", "lib"):
        (path / folder).mkdir()
    for file in built.iterdir():
        folder = "lib" if ".so" in file.suffixes else "bin"
        if folder == "lib" or file.name in _TOOLS:
            shutil.copy2(file, path / folder / file.name, follow_symlinks=False)


def _copy_sources(source: Path, out: Path) -> None:
    for name in _SOURCES:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, out / name)
        else:
            shutil.copy2(source / name, out / name)


def _make_variables(tools: Path) -> dict[str, str]:
    """Return the caller's variables with the tools first on PATH and none of their flags."""
    variables = packages.make_host_environment()
    for name in ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CMAKE_ARGS", "CMAKE_GENERATOR"):
        variables.pop(name, None)
    variables["PATH"] = f"{tools / 'bin'}:{variables.get('PATH', os.defpath)}"
    return variables


def _run(
    argv: Sequence[str | Path],
    *,
    title: str,
    log_path: Path,
    environment: dict[str, str] | None = None,
) -> None:
    variables = environment or packages.make_host_environment()
    if process.run(argv, log_path=log_path, environment=variables) != 0:
        raise _make_error(title, log_path)


def _make_error(title: str, log_path: Path) -> HostError:
    return HostError(
        f"{title} failed",
        on=str(log_path),
        why=process.read_last_lines(log_path),
        then=f"read {log_path}, then run this again",
    )
