"""A program `docker` that notes how it is called and answers as it is told: no daemon is needed."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.engine import container_image, docker_client

_PROGRAM = """#!{python} -IS
import json, os, sys
from pathlib import Path
folder = Path({folder!r})
words = sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\\n")
(folder / "variables").write_text(json.dumps(dict(os.environ)))
answers = json.loads((folder / "answers").read_text())
if "down" in answers:
    sys.exit(answers["down"])
if words[:2] == ["image", "inspect"]:
    asked = words[2:]
    print(json.dumps([{{"Id": f"id of {{tag}}"}} for tag in asked if tag in answers["images"]]))
    absent = [tag for tag in asked if tag not in answers["images"]]
    for tag in absent:
        print(f"Error response from daemon: No such image: {{tag}}", file=sys.stderr)
    sys.exit(1 if absent else 0)
out, err, code = answers.get(words[0], ["", "", 0])
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""

_INFO = {"DockerRootDir": "/var/lib/docker", "SecurityOptions": ["name=seccomp,profile=builtin"]}


@dataclass(frozen=True)
class FakeDocker:
    """The program's folder, which stands first on PATH."""

    folder: Path

    def answer(self, verb: str, out: str = "", err: str = "", code: int = 0) -> None:
        """Let the program answer a verb so from now on."""
        self._change(verb, [out, err, code])

    def go_down(self, told: str) -> None:
        """Let no daemon answer from now on."""
        docker_client.read_daemon.cache_clear()
        self._change("down", told)

    def describe(self, **info: Any) -> None:
        """Let the daemon be another one."""
        docker_client.read_daemon.cache_clear()
        self.answer("info", json.dumps(_INFO | info))

    def hold(self, *names: str) -> None:
        """Let these images be there, and no others."""
        self._change("images", [make_tag(name) for name in names])

    def read_calls(self, verb: str) -> list[list[str]]:
        """Return the words of each call of that verb so far."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [words for words in map(json.loads, lines) if words[0] == verb]

    def read_variables(self) -> dict[str, str]:
        """Return the variables of the last call."""
        return dict(json.loads((self.folder / "variables").read_text()))

    def _change(self, name: str, value: object) -> None:
        path = self.folder / "answers"
        answers = json.loads(path.read_text())
        path.write_text(json.dumps(answers | {name: value}))


def make_tag(name: str) -> str:
    """Return the tag of an image, the same whatever its recipe."""
    return f"tristill-{name}:cpu-1"


def install_fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    """Put a fake Docker without any image first on PATH, and let no setting of the user's count."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(_PROGRAM.format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    (folder / "answers").write_text(json.dumps({"images": []}))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(container_image, "make_tag", make_tag)
    monkeypatch.setattr(container_image, "make_labels", lambda name: {})
    fake = FakeDocker(folder)
    fake.describe()
    return fake
