"""out/<recipe>/<artifact>, beside the store: links to what lies in it under a key."""

import os
from pathlib import Path

from pipeline.artifact.store import Artifact


def write_link(directory: Path, artifact: Artifact) -> Path:
    """Point the artifact's link at it; return the link."""
    return write_named_link(directory, artifact.name, artifact.path)


def write_named_link(directory: Path, name: str, path: Path) -> Path:
    """Point the link of that name at a path, an old one replaced in one step; return the link."""
    link = directory / name
    target = os.path.relpath(path, directory)
    if not (link.is_symlink() and str(link.readlink()) == target):
        directory.mkdir(parents=True, exist_ok=True)
        temporary = directory / f".{name}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(link)
    return link


def read_links(directory: Path) -> dict[str, str]:
    """Return the name of the directory that each link of a recipe points at, by artifact."""
    return {path.name: path.readlink().name for path in directory.glob("*") if path.is_symlink()}
