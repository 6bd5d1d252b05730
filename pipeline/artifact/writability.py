"""Whether a directory can be written, found out by writing."""

import tempfile
from pathlib import Path


def find_obstacle(directory: Path) -> str | None:
    """Return why nothing can be written in the directory, made when missing; None when it can."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return error.strerror or str(error)
