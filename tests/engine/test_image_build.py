"""An image is built once, with what the caller has configured, and says why when it cannot be."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import docker_client, image_build
from pipeline.engine.container_image import (
    make_environment_digest,
    make_labels,
    make_recipe_digest,
    make_tag,
)
from pipeline.engine.image_build import Variant, make_build_argv, provide
from pipeline.engine.image_registry import Registry
from pipeline.errors import HostError

_TRAIN = Variant(name="train")
# Its images are files, named after their tags, that hold their labels.
_DOCKER = """#!{python} -IS
import json, sys
from pathlib import Path
folder = Path({folder!r})
words = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
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


class Docker:
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


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Docker]:
    for name in image_build.list_foreign_variables():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("TRISTILL_ENVS", str(tmp_path / "envs"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'docker'}:/usr/bin:/bin")
    docker_client.read_daemon.cache_clear()
    yield Docker(tmp_path / "docker")
    docker_client.read_daemon.cache_clear()
