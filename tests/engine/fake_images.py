"""A program `docker` whose images are files; it builds, tags, pulls and pushes without a daemon."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.engine import docker_client

# Its images are files, named after their tags, that hold their labels.
_DOCKER = """#!{python} -IS
import json, os, sys, time
from pathlib import Path
folder = Path({folder!r})
words = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
if (folder / "down").exists():
    sys.exit("Cannot connect to the Docker daemon")
def place(tag):
    return folder / tag.replace("/", "_")
if words[0] == "build":
    for word in words:
        if word.startswith("id="):
            name, path = word.removeprefix("id=").split(",src=")
            (folder / name).write_text(Path(path).read_text())
        if word.startswith("wheels="):
            listed = sorted(path.name for path in Path(word.partition("=")[2]).iterdir())
            (folder / "wheels").write_text(json.dumps(listed))
    if (folder / "broken").exists():
        sys.exit("the last words of the build")
    time.sleep(0.3 if "LINGER" in os.environ else 0)
    values = dict(word.split("=", 1) for word in words if "=" in word)
    place(words[words.index("--tag") + 1]).write_text(json.dumps({{
        "io.tristill.recipe": values["RECIPE"],
        "io.tristill.environment": values["ENVIRONMENT"],
        "io.tristill.accelerator": values["ACCEL"],
    }}))
elif words[0] == "pull":
    if not place(words[-1]).exists():
        sys.exit(f"{{words[-1]}}: not found")
elif words[0] in ("tag", "push"):
    place(words[-1]).write_text(place(words[-2]).read_text() if words[0] == "tag" else "{{}}")
elif words[:2] == ["image", "inspect"]:
    here = [tag for tag in words[2:] if place(tag).exists()]
    print(json.dumps([
        {{
            "Id": "sha256:1",
            "RepoTags": [tag],
            "Size": 1,
            "Config": {{"Labels": json.loads(place(tag).read_text())}},
            "RepoDigests": ["reg.example/me/tristill-train@sha256:" + "a" * 64],
        }}
        for tag in here
    ]))
    if len(here) < len(words[2:]):
        sys.exit("Error response from daemon: No such image")
elif words[0] == "info":
    print(json.dumps({{"DockerRootDir": "/"}}))
"""


class FakeImages:
    """A program `docker` that keeps its images as files and notes how it is called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        program = folder / "docker"
        program.write_text(_DOCKER.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)

    def hold(self, reference: str, labels: dict[str, str]) -> None:
        (self.folder / reference.replace("/", "_")).write_text(json.dumps(labels))

    def read_calls(self, verb: str) -> list[list[str]]:
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [words for words in map(json.loads, lines) if words[0] == verb]


def install_fake_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeImages:
    """Put the program first on PATH, and let no setting of the user's count."""
    for name in os.environ:
        if name.startswith(("PIP_", "NPM_")) or name.lower().endswith(("_proxy", "_bundle")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("TRISTILL_ENVS", str(folder / "envs"))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    # What is free on this host decides nothing: no image is made.
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 40))
    docker_client.read_daemon.cache_clear()
    return FakeImages(folder)
