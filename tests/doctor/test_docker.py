"""What keeps Docker from being used is told with its one fix, and never stops a build."""

import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine.container_image import make_tag
from tests.doctor.fake_host import NEEDS, SHORT_S, FakeHost, make_docker_info, make_silent_info

_SOCKET = "unix:///var/run/docker.sock"
_ABSENT = f"Cannot connect to the Docker daemon at {_SOCKET}. Is the docker daemon running?"
_REFUSED = (
    f"permission denied while trying to connect to the Docker daemon socket at {_SOCKET}: Get"
    ' "http://%2Fvar%2Frun%2Fdocker.sock/v1.45/info": dial unix /var/run/docker.sock: connect:'
    " permission denied"
)

_IMAGES = ("convert", "serve", "train")


def _add_docker(
    host: FakeHost, info: str, *, images: str = "", directory: Path | None = None
) -> Path:
    return host.add_program("docker", {"info ": info, "image ls ": images}, directory=directory)


@pytest.fixture
def user() -> str:
    return pwd.getpwuid(1).pw_name


def test_a_ready_docker(host: FakeHost) -> None:
    path = _add_docker(host, make_docker_info())
    found = host.examine()
    assert [
        (name, found[name].state, found[name].what) for name in list(found) if "docker" in name
    ] == [
        ("docker", "ok", f"docker is {path}"),
        ("docker-daemon", "ok", "Docker 26.1.5+dfsg1 answers"),
        ("docker-kind", "ok", "Docker is this host's own engine"),
    ]
    assert found["buildx"].what == "buildx 0.13.1+ds1"
    assert found["compose"].what == "compose 2.26.1-4"
    assert all(
        found[name].state == "ok"
        for name in ("docker", "docker-daemon", "docker-kind", "buildx", "compose")
    )


def test_no_docker(host: FakeHost) -> None:
    host.write("/etc/os-release", "ID=arch\n")
    found = host.examine()
    assert found["docker"].state == "warning"
    assert found["docker"].fix == "sudo pacman -S docker docker-buildx docker-compose"
    assert "engine venv" in found["docker"].why
    assert not {"docker-daemon", "docker-kind", "buildx", "compose", "images"} & set(found)


@pytest.mark.parametrize(
    ("file", "endpoint", "fix"),
    [
        ("/run/systemd/system/x", _SOCKET, "sudo systemctl enable --now docker"),
        ("/nothing", _SOCKET, "sudo sh -c 'dockerd >/var/log/dockerd.log 2>&1 &'"),
        (
            "/nothing",
            "unix:///home/ada/.docker/desktop/docker.sock",
            "systemctl --user start docker-desktop",
        ),
        ("/nothing", "unix:///run/user/1000/docker.sock", "systemctl --user start docker"),
    ],
)
def test_a_daemon_that_does_not_run(host: FakeHost, file: str, endpoint: str, fix: str) -> None:
    host.write(file, "")
    _add_docker(host, make_silent_info(_ABSENT.replace(_SOCKET, endpoint)))
    found = host.examine()
    assert found["docker-daemon"].state == "warning"
    assert found["docker-daemon"].what == "Docker is installed and does not run"
    assert found["docker-daemon"].fix == fix
    # The client tells of its plugins all the same.
    assert found["buildx"].state == "ok"
    assert "images" not in found


@pytest.mark.parametrize("endpoint", ["tcp://10.0.0.1:2375", "unix:///gone.sock"])
def test_a_variable_that_leads_astray(host: FakeHost, endpoint: str) -> None:
    _add_docker(host, make_silent_info(_ABSENT.replace(_SOCKET, endpoint)))
    found = host.examine(host.make_machine({"DOCKER_HOST": endpoint}))["docker-daemon"]
    assert found.fix == "unset DOCKER_HOST"


def test_a_service_without_systemd(host: FakeHost) -> None:
    host.write("/etc/init.d/docker", "")
    (host.root / "etc/init.d/docker").chmod(0o755)
    _add_docker(host, make_silent_info(_ABSENT))
    assert host.examine()["docker-daemon"].fix == "sudo service docker start"
    root = host.examine(host.make_machine(user_id=0))
    assert root["docker-daemon"].fix == "service docker start"


def test_a_socket_that_this_user_may_not_use(host: FakeHost, user: str) -> None:
    host.write("/etc/group", "root:x:0:\ndocker:x:999:grace\n")
    _add_docker(host, make_silent_info(_REFUSED))
    found = host.examine(host.make_machine(user_id=1))["docker-daemon"]
    assert (found.state, found.what) == ("warning", "this user may not talk to Docker")
    assert found.fix == f"sudo usermod -aG docker {user}, then log out and in again"


def test_a_membership_newer_than_the_login(host: FakeHost, user: str) -> None:
    host.write("/etc/group", f"docker:x:999:grace,{user}\n")
    _add_docker(host, make_silent_info(_REFUSED))
    found = host.examine(host.make_machine(user_id=1))["docker-daemon"]
    assert found.fix == "log out and in again: you are in the group docker since this login"


def test_a_daemon_that_hangs(host: FakeHost) -> None:
    host.add_script("docker", "exec /bin/sleep 600")
    found = host.examine(host.make_machine(each_s=SHORT_S))
    assert found["docker-daemon"].what == "Docker does not answer"
    assert "no answer within 0.5 s" in found["docker-daemon"].why
    assert found["docker-daemon"].fix == "sudo systemctl restart docker"
    # It had no time to tell of its plugins.
    assert "buildx" not in found


def test_a_docker_of_old(host: FakeHost) -> None:
    host.write("/etc/os-release", "ID=fedora\n")
    _add_docker(host, make_docker_info(ServerVersion="19.03.15"))
    found = host.examine()["docker-daemon"]
    assert (found.state, found.what) == ("warning", "Docker 19.03.15 is too old")
    assert found.fix == "sudo dnf install moby-engine docker-buildx docker-compose"


def test_docker_by_snap(host: FakeHost) -> None:
    host.write("/etc/os-release", "ID=ubuntu\nID_LIKE=debian\n")
    snap = host.home / "snap" / "bin"
    _add_docker(host, make_docker_info(), directory=snap)
    machine = host.make_machine(path=str(snap))
    found = host.examine(machine)["docker-kind"]
    assert (found.state, found.what) == ("warning", "Docker is installed by snap")
    assert found.fix == (
        "sudo snap remove docker; sudo apt-get install docker.io docker-buildx docker-compose-v2"
    )
    _add_docker(host, make_silent_info(_ABSENT), directory=snap)
    assert host.examine(machine)["docker-daemon"].fix == "sudo snap start docker"


def test_docker_desktop(host: FakeHost) -> None:
    _add_docker(host, make_docker_info(OperatingSystem="Docker Desktop"))
    found = host.examine()["docker-kind"]
    assert (found.state, found.what) == ("warning", "Docker is Docker Desktop")
    assert found.fix == "docker context use default (with Docker Engine installed beside it)"
    host.write("/proc/version", "Linux version 5.15.167.4-microsoft-standard-WSL2")
    assert host.examine()["docker-kind"].state == "ok"


def test_a_rootless_docker(host: FakeHost) -> None:
    security = ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]
    _add_docker(host, make_docker_info(SecurityOptions=security))
    assert host.examine()["docker-kind"].what == "Docker is rootless"
    _add_docker(host, make_docker_info(SecurityOptions=security, MemoryLimit=False))
    found = host.examine()["docker-kind"]
    assert (found.state, found.what) == ("warning", "Docker is rootless and keeps no limits")
    assert found.fix.startswith("sudo systemctl edit user@.service: [Service] Delegate=")


def test_docker_on_another_machine(host: FakeHost) -> None:
    _add_docker(host, make_docker_info())
    far = host.examine(host.make_machine({"DOCKER_HOST": "ssh://ada@build.example"}))["docker-kind"]
    assert (far.state, far.fix) == ("warning", "unset DOCKER_HOST")
    near = host.examine(host.make_machine({"DOCKER_HOST": "tcp://127.0.0.1:2375"}))["docker-kind"]
    assert near.state == "ok"


def test_podman_in_dockers_place(host: FakeHost) -> None:
    host.write("/etc/os-release", "ID=fedora\n")
    _add_docker(host, '{"host": {"arch": "amd64"}, "version": {"Version": "5.4.0"}}')
    found = host.examine()
    assert found["docker-kind"].what == "docker is Podman here"
    assert found["docker-kind"].fix == "sudo dnf install moby-engine docker-buildx docker-compose"
    assert not {"docker-daemon", "buildx", "images"} & set(found)


def _without_plugins() -> str:
    return make_docker_info(ClientInfo={"Version": "28.2.2", "Plugins": None})


def test_a_first_client_without_plugins_while_another_has_them(host: FakeHost) -> None:
    first = _add_docker(host, _without_plugins(), directory=host.home / "first")
    second = _add_docker(host, make_docker_info())
    machine = host.make_machine(path=str(first.parent))
    for name in ("buildx", "compose"):
        found = host.examine(machine)[name]
        assert (found.state, found.what) == (
            "warning",
            f"{first}, which is called first, has no {name}",
        )
        assert str(second) in found.why
        assert found.fix == f'export PATH="{second.parent}:$PATH"'


def test_no_plugins_at_all(host: FakeHost) -> None:
    host.write("/etc/os-release", "ID=debian\nVERSION_ID=13\n")
    _add_docker(host, _without_plugins())
    found = host.examine()
    assert (found["buildx"].state, found["buildx"].what) == (
        "warning",
        "docker has no buildx plugin",
    )
    assert found["buildx"].fix == "sudo apt-get install docker-buildx"
    assert found["compose"].fix == "sudo apt-get install docker-compose"


@pytest.mark.parametrize(
    ("version", "state"), [("1.25.0", "warning"), ("1.29.2", "ok"), ("v2.40.3", "ok")]
)
def test_compose_without_a_plugin(host: FakeHost, version: str, state: str) -> None:
    _add_docker(host, _without_plugins())
    host.add_program("docker-compose", {"version --short": f"{version}\n"})
    found = host.examine()["compose"]
    assert found.state == state
    assert f"docker-compose {version}" in found.what


def test_the_engine_is_docker_once_all_images_are_here(host: FakeHost) -> None:
    tags = [make_tag(name) for name in _IMAGES]
    _add_docker(host, make_docker_info(), images="\n".join(tags[1:]))
    some = host.examine()
    assert some["images"].state == "warning"
    assert some["images"].what == "this checkout's images of convert are not here"
    assert some["images"].fix == "make images (or make pull REGISTRY=...)"
    assert "engine venv" in some["engine"].what
    assert some["compilers"].state == "problem"

    _add_docker(host, make_docker_info(), images="\n".join([*tags, "tristill-convert:old"]))
    found = host.examine()
    assert found["images"].what == f"{', '.join(_IMAGES)} are here"
    assert "engine docker" in found["engine"].what
    # What only virtual environments need stops no build in containers.
    assert found["compilers"].state == "warning"
    assert found["compilers"].why.endswith("only engine venv needs it")


def test_a_host_that_is_itself_an_image_needs_no_compiler(host: FakeHost) -> None:
    found = host.examine(host.make_machine({"TRISTILL_IMAGE": "train"}))
    assert found["engine"].what == "this host is image train: --engine here runs its stages"
    assert found["compilers"].state == "warning"


def test_an_image_that_only_a_container_holds_needs_docker(host: FakeHost) -> None:
    needs = replace(NEEDS, images=("convert", "serve-cuda", "train-cuda"))
    found = host.examine(needs=needs)["images"]
    assert (found.state, found.what) == ("problem", "the recipe needs image serve-cuda")
    assert 'accelerator = "cpu"' in found.fix
    tags = "\n".join(map(make_tag, needs.images))
    _add_docker(host, make_docker_info(), images=make_tag("convert"))
    found = host.examine(needs=needs)["images"]
    assert found.state == "problem"
    assert "serve-cuda has no other form" in found.why
    _add_docker(host, make_docker_info(), images=tags)
    assert host.examine(needs=needs)["images"].state == "ok"


def test_images_that_docker_does_not_list(host: FakeHost) -> None:
    host.add_program("docker", {"info ": make_docker_info()})
    found = host.examine()["images"]
    assert (found.state, found.what) == (
        "ok",
        "which of this checkout's images are here is not known",
    )
