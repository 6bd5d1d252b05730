"""compose.yaml shows by hand what an engine does: no daemon is needed to hold the two together."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import compose, docker_client
from pipeline.engine.container_image import NAMES
from pipeline.engine.docker_engine import DockerEngine
from pipeline.engine.image import IMAGES
from pipeline.errors import UsageError
from tests.engine.fake_docker import FakeDocker, install_fake_docker

_STAGES = ("convert", "train")
# What both docker-compose 1.29.2 and Compose v2 take in a service, of what is of use here.
_KEYS_OF_BOTH = {
    *("cap_drop", "command", "deploy", "environment", "healthcheck", "image", "init"),
    *("network_mode", "pids_limit", "ports", "profiles", "pull_policy", "read_only", "restart"),
    *("security_opt", "stop_grace_period", "stop_signal", "tmpfs", "user", "volumes"),
    "working_dir",
}
_KEYS_OF_A_MOUNT = {"type", "source", "target", "read_only"}
_VARIABLE = re.compile(r"\$\{(\w+):([-?])([^}]*)\}")


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDocker]:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 5678)
    yield install_fake_docker(tmp_path / "fake docker", monkeypatch)
    docker_client.read_daemon.cache_clear()


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
    return document


def _read_services(name: str) -> dict[str, dict[str, Any]]:
    services: dict[str, dict[str, Any]] = _read(name)["services"]
    return services


def _read_run(docker: FakeDocker, image: str, tmp_path: Path) -> list[str]:
    """Return the words with which the engine starts a stage."""
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    job = {"stage": "data.rows", "inputs": {}, "options": {}, "out": str(work / "out")}
    docker.hold(image)
    DockerEngine().run(image, job, work=work, log=work / "log")
    (words,) = docker.read_calls("run")
    return words


def _list_values(words: list[str], option: str) -> list[str]:
    return [after for word, after in zip(words, words[1:], strict=False) if word == option]


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_both_generations_of_compose_take_every_key(name: str) -> None:
    document = _read(name)
    assert {key for key in document if not key.startswith("x-")} == {"services"}
    for service in document["services"].values():
        assert service.keys() <= _KEYS_OF_BOTH
        for mount in service.get("volumes", []):
            assert mount.keys() <= _KEYS_OF_A_MOUNT


@pytest.mark.parametrize("image", _STAGES)
def test_a_stage_service_is_confined_as_the_engine_confines_a_stage(
    docker: FakeDocker, image: str, tmp_path: Path
) -> None:
    service = _read_services("compose.yaml")[image]
    words = _read_run(docker, image, tmp_path)
    assert service["init"] and "--init" in words
    assert service["read_only"] and "--read-only" in words
    assert service["cap_drop"] == _list_values(words, "--cap-drop")
    assert set(_list_values(words, "--security-opt")) <= set(service["security_opt"])
    assert service["tmpfs"] == _list_values(words, "--tmpfs")
    assert [service["working_dir"]] == _list_values(words, "--workdir")
    assert [service["network_mode"]] == _list_values(words, "--network")
    assert [str(service["pids_limit"])] == _list_values(words, "--pids-limit")
    assert [service["pull_policy"]] == _list_values(words, "--pull")


@pytest.mark.parametrize("image", _STAGES)
def test_a_stage_service_mounts_what_the_engine_mounts(
    docker: FakeDocker, image: str, tmp_path: Path
) -> None:
    """The store stands for the inputs, and there is no job."""
    mounts = _read_services("compose.yaml")[image]["volumes"]
    shown = {mount["target"]: mount.get("read_only", False) for mount in mounts}
    engine = {}
    for line in _list_values(_read_run(docker, image, tmp_path), "--mount"):
        fields = dict(field.partition("=")[::2] for field in line.split(","))
        engine[fields["target"]] = "readonly" in fields
    assert shown.pop("/store")
    assert engine.pop("/job.json")
    assert shown == engine
    (code,) = [mount for mount in mounts if mount["target"].startswith("/tristill")]
    assert REPOSITORY / code["source"] == REPOSITORY / "pipeline"


def test_serve_alone_starts_by_itself_and_no_other_machine_reaches_it() -> None:
    services = _read_services("compose.yaml")
    assert [name for name, service in services.items() if "profiles" not in service] == ["serve"]
    serve = services["serve"]
    assert serve["ports"] == ["${TRISTILL_ADDRESS:-127.0.0.1}:${TRISTILL_PORT:-8080}:8080"]
    assert serve["restart"] == "unless-stopped"
    for confined in ("init", "read_only", "cap_drop", "security_opt", "tmpfs", "user"):
        assert serve[confined] == services["train"][confined]


def test_serve_asks_its_health_as_the_image_does() -> None:
    asked = _read_services("compose.yaml")["serve"]["healthcheck"]
    (line,) = re.findall(
        r"^HEALTHCHECK (.+)$", (REPOSITORY / "Dockerfile.serve").read_text(), re.MULTILINE
    )
    options, _, command = line.partition(" CMD ")
    assert yaml.safe_load(command) == asked["test"][1:]
    assert dict(word[2:].split("=") for word in options.split()) == {
        name.replace("_", "-"): asked[name] for name in ("interval", "timeout", "start_period")
    }


def test_a_host_without_gpus_meets_none_in_compose_yaml() -> None:
    assert not any("deploy" in service for service in _read_services("compose.yaml").values())
    with_gpus = _read_services("compose.gpu.yaml")
    assert sorted(with_gpus) == ["canary", "serve", "train"]
    for service in with_gpus.values():
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_the_written_variables_are_those_that_are_asked_for() -> None:
    text = "".join((REPOSITORY / name).read_text() for name in ("compose.yaml", "compose.gpu.yaml"))
    required = {name for name, kind, _ in _VARIABLE.findall(text) if kind == "?"}
    written = compose.make_variables(docker_client.read_daemon())
    assert required <= written.keys()
    assert written["TRISTILL_USER"] == "1234:5678"
    assert written["TRISTILL_SERVE_IMAGE"] == "tristill-serve:cpu-1"


def test_in_a_rootless_daemon_the_containers_root_is_the_user(docker: FakeDocker) -> None:
    docker.describe(SecurityOptions=["name=rootless"])
    assert compose.make_variables(docker_client.read_daemon())["TRISTILL_USER"] == "0:0"


def test_what_the_user_wrote_into_env_stays() -> None:
    before = "# mine\nTRISTILL_MODEL=/models/a.gguf\nTRISTILL_USER=0:0\n"
    after = compose.merge(before, {"TRISTILL_USER": "1:2", "TRISTILL_SERVE_IMAGE": "tag"})
    assert after == (
        "# mine\nTRISTILL_MODEL=/models/a.gguf\nTRISTILL_USER=1:2\nTRISTILL_SERVE_IMAGE=tag\n"
    )
    assert compose.merge(after, {"TRISTILL_USER": "1:2"}).count("TRISTILL_USER") == 1


def test_every_image_of_a_stage_can_be_entered() -> None:
    assert set(_read_services("compose.yaml")) >= {IMAGES[name].kind for name in NAMES}


def test_what_is_somebody_elses_is_pinned_and_confined() -> None:
    services = _read_services("compose.yaml")
    foreign = {name: each for name, each in services.items() if "TRISTILL" not in each["image"]}
    assert set(foreign) == {"balancer", "prometheus", "grafana"}
    for service in foreign.values():
        assert re.fullmatch(r"[\w/.-]+:[\w.-]+@sha256:[0-9a-f]{64}", service["image"])
        for confined in ("init", "read_only", "cap_drop", "security_opt", "user"):
            assert service[confined] == services["train"][confined]


def test_the_second_version_is_served_as_the_first() -> None:
    serve, canary = (_read_services("compose.yaml")[name] for name in ("serve", "canary"))
    for key in serve.keys() - {"ports", "volumes"}:
        assert canary[key] == serve[key]
    assert "ports" not in canary, "only the balancer reaches it"


def test_what_containers_write_is_made_for_them(tmp_path: Path) -> None:
    compose.write_directories(tmp_path, "secret,another")
    compose.write_directories(tmp_path, "secret,another")
    key = tmp_path / "monitoring" / "secrets" / "api-key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("secret", 0o600)
    configuration = (tmp_path / "balancer" / "haproxy.cfg").read_text()
    assert "stats socket /balancer/socket mode 600" in configuration
    assert "ssl" not in configuration
    for name in ("balancer", "monitoring/prometheus", "monitoring/grafana", "out"):
        assert (tmp_path / name).is_dir()
    (tmp_path / "balancer" / "certificate.pem").touch()
    compose.write_directories(tmp_path, "")
    configuration = (tmp_path / "balancer" / "haproxy.cfg").read_text()
    assert "bind :8080 ssl crt /balancer/certificate.pem" in configuration
    written = _read_services("compose.yaml")
    sources = {each["source"] for name in written for each in written[name].get("volumes", [])}
    for source in (each for each in sources if each.startswith("./build/")):
        assert (tmp_path / source.removeprefix("./build/")).is_dir()


@pytest.mark.parametrize(
    ("text", "is_let"),
    [
        ("", True),
        ("TRISTILL_ADDRESS=127.0.0.1\n", True),
        ("TRISTILL_ADDRESS=0.0.0.0\n", False),
        ('# TRISTILL_API_KEY=a\nTRISTILL_ADDRESS="::"\n', False),
        ("TRISTILL_ADDRESS=0.0.0.0\nTRISTILL_API_KEY=a\n", True),
    ],
)
def test_beyond_the_loopback_compose_needs_a_key(text: str, is_let: bool) -> None:
    choices = compose.read_choices(text)
    if is_let:
        compose.require_key(choices)
        return
    with pytest.raises(UsageError, match="needs a key") as caught:
        compose.require_key(choices)
    assert "TRISTILL_API_KEY" in caught.value.then
