"""Where the libraries of this environment lie: llama.cpp's own, and the kernel beside them."""

import sys
from pathlib import Path

KERNEL = "libkquants.so"


def find_library_dir() -> Path:
    """Return the directory of llama.cpp's libraries; an image without llama.cpp has none."""
    return Path(sys.prefix) / "llama" / "lib"


def find_kernel() -> Path | None:
    """Return the kernel of this environment, None where it has none."""
    path = find_library_dir() / KERNEL
    return path if path.is_file() else None
