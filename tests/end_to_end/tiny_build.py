"""One build of a very small model through the command line, and what its store holds."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store

RECIPE = REPOSITORY / "tests" / "end_to_end" / "tiny.toml"


class Build:
    """A store and what the command line says of it."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def run(self, *argv: str, recipe: Path = RECIPE) -> "subprocess.CompletedProcess[str]":
        # A relative path, as make gives it: the stages run elsewhere.
        store = os.path.relpath(self.store, REPOSITORY)
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *argv[:1], "--store", store]
            + (["--recipe", str(recipe)] if argv[0] not in ("show", "verify") else [])
            + (["--engine", "venv"] if argv[0] in ("build", "rebuild") else [])
            + list(argv[1:]),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )

    def find(self, name: str) -> Path:
        """Return the directory of the artifact of that name that was sealed last."""
        return [each for each in open_store(self.store).read_all()[0] if each.name == name][-1].path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class Sum(NamedTuple):
    """One row of the demonstration; `answer` is written out here as it must be taught."""

    id: str
    problem: str
    answer: str


def read_rows(path: Path) -> list[Sum]:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        asked, said = row["messages"]
        answer = f"<think>\n{said['thinking']}\n</think>\n{said['content']}"
        rows.append(Sum(row["id"], asked["content"], answer))
    return rows


def find_processes(word: str) -> list[str]:
    """Return the command lines on this machine that hold the word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(path.read_text(errors="replace"))
    return [line for line in found if word in line]
