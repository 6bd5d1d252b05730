"""Puts the fake server where the environment's llama-server is looked for."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest


def install_fake_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` the environment's prefix, with the fake server as its llama-server."""
    program = folder / "llama" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    script = Path(__file__).with_name("fake_server.py").resolve()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "prefix", str(folder))


def write_behaviour(path: Path, **behaviour: Any) -> Path:
    """Write the "model" that tells the fake server what to do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(behaviour))
    return path
