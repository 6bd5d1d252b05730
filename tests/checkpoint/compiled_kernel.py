"""The kernel, compiled by a test itself with the image's own flags."""

import subprocess
from pathlib import Path

from pipeline.checkpoint.kernel_file import KERNEL
from pipeline.engine.image import KERNEL_FLAGS, KERNEL_SOURCES

_WARNINGS = ("-Wall", "-Wextra", "-Werror")


def compile_kernel(directory: Path, *flags: str, source: Path = KERNEL_SOURCES[0]) -> Path:
    """Return the library, compiled into the directory."""
    path = directory / KERNEL
    argv = ["cc", *KERNEL_FLAGS, *_WARNINGS, *flags, str(source), "-o", str(path)]
    subprocess.run(argv, check=True)
    return path
