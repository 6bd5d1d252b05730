"""out/<recipe>/<artifact>, beside the store: links to what lies in it under a key."""

import os
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact.store import Artifact


def write_links(directory: Path, sealed: Mapping[str, Artifact]) -> dict[str, Path]:
    """Point a link at each artifact, the old one replaced in one step; return the links by name."""
    directory.mkdir(parents=True, exist_ok=True)
    links = {}
    for name, artifact in sealed.items():
        links[name] = directory / name
        temporary = directory / f".{name}.{os.getpid()}"
        temporary.symlink_to(os.path.relpath(artifact.path, directory))
        temporary.rename(links[name])
    return links
