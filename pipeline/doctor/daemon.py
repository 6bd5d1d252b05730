"""Docker's daemon: whether it answers, why not, and of what kind it is."""

import os
import pwd
from contextlib import suppress
from urllib.parse import urlsplit

from pipeline.doctor.finding import Finding, ok, warning
from pipeline.doctor.machine import Machine
from pipeline.doctor.situation import Client, Situation
from pipeline.doctor.version import parse_version

_OLDEST = (20, 10)
_REFUSED = "permission denied"
_ABSENT = ("cannot connect to the docker daemon", "no such file or directory", "refused")
_WHY = "no containers: builds run in virtual environments (engine venv)"
_DESKTOP_SOCKET = ".docker/desktop/"
_USER_SOCKET = "/run/user/"
_SOCKET = "unix:///var/run/docker.sock"
_HERE = ("localhost", "127.0.0.1", "::1")


def check_daemon(seen: Situation) -> Finding | None:
    """The daemon answers this user, and is new enough."""
    client = seen.docker.client
    if client is None or client.is_podman:
        return None
    if not client.daemon:
        return _explain_silence(client, seen.machine)
    version = str(client.daemon["ServerVersion"])
    if parse_version(version) >= _OLDEST:
        return ok("docker-daemon", what=f"Docker {version} answers")
    return warning(
        "docker-daemon",
        what=f"Docker {version} is too old",
        why="stages run in containers of Docker 20.10 or newer",
        fix=seen.machine.find_fix("docker"),
    )


def _explain_silence(client: Client, machine: Machine) -> Finding:
    told = client.obstacle.lower()
    if _REFUSED in told:
        return warning(
            "docker-daemon",
            what="this user may not talk to Docker",
            why=f"{client.obstacle}; {_WHY}",
            fix=_find_admission(client, machine),
        )
    if any(word in told for word in _ABSENT):
        return warning(
            "docker-daemon",
            what="Docker is installed and does not run",
            why=f"{client.obstacle}; {_WHY}",
            fix=machine.make_command(_find_start(client, machine)),
        )
    return warning(
        "docker-daemon",
        what="Docker does not answer",
        why=f"{client.obstacle}; {_WHY}",
        fix=machine.make_command("sudo systemctl restart docker"),
    )


def _find_admission(client: Client, machine: Machine) -> str:
    """Return how this user comes into the group of the daemon's socket."""
    user = _find_user(machine)
    line = next((x for x in machine.read("/etc/group").splitlines() if x.startswith("docker:")), "")
    if user in line.rpartition(":")[2].split(","):
        return "log out and in again: you are in the group docker since this login"
    if client.is_snap:
        return (
            f"sudo addgroup --system docker; sudo adduser {user} docker; sudo snap restart docker"
        )
    return f"sudo usermod -aG docker {user}, then log out and in again"


def _find_user(machine: Machine) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(machine.user_id).pw_name
    return machine.variables.get("USER", "USER")


def _find_start(client: Client, machine: Machine) -> str:
    """Return the line that starts the daemon that the client calls."""
    if _DESKTOP_SOCKET in client.obstacle:
        return "systemctl --user start docker-desktop"
    if _USER_SOCKET in client.obstacle:
        return "systemctl --user start docker"
    if machine.variables.get("DOCKER_HOST", _SOCKET) != _SOCKET:
        return "unset DOCKER_HOST"
    if client.is_snap:
        return "sudo snap start docker"
    if machine.at("/run/systemd/system").is_dir():
        return "sudo systemctl enable --now docker"
    if os.access(machine.at("/etc/init.d/docker"), os.X_OK):
        return "sudo service docker start"
    return "sudo sh -c 'dockerd >/var/log/dockerd.log 2>&1 &'"


def check_kind(seen: Situation) -> Finding | None:
    """The daemon is the ordinary one of this host, or what differs does no harm."""
    client = seen.docker.client
    if client is None:
        return None
    if client.is_podman:
        what, why = "docker is Podman here", "the engine's containers are tried with Docker alone"
    elif client.is_snap:
        what = "Docker is installed by snap"
        why = "its confinement refuses --init and no-new-privileges, with which stages run"
    elif not client.daemon:
        return None
    elif client.daemon.get("OperatingSystem") == "Docker Desktop":
        return _check_desktop(seen.machine)
    elif (host := seen.machine.variables.get("DOCKER_HOST", "")) and _is_elsewhere(host):
        return _warn_of_distance(host)
    elif any("rootless" in each for each in client.daemon.get("SecurityOptions") or []):
        return _check_rootless(client, seen.machine)
    else:
        return ok("docker-kind", what="Docker is this host's own engine")
    return warning("docker-kind", what=what, why=why, fix=_replace(client, seen.machine))


def _replace(client: Client, machine: Machine) -> str:
    install = machine.find_fix("docker")
    if client.is_snap:
        return machine.make_command("sudo snap remove docker; ") + install
    return install


def _check_desktop(machine: Machine) -> Finding:
    if "microsoft" in machine.read("/proc/version").lower():
        return ok("docker-kind", what="Docker is Docker Desktop, beside this Linux on Windows")
    return warning(
        "docker-kind",
        what="Docker is Docker Desktop",
        why="it runs in a virtual machine with memory and shared folders of its own, without GPUs",
        fix="docker context use default (with Docker Engine installed beside it)",
    )


def _is_elsewhere(host: str) -> bool:
    parts = urlsplit(host)
    return parts.scheme in ("tcp", "ssh") and parts.hostname not in _HERE


def _warn_of_distance(host: str) -> Finding:
    return warning(
        "docker-kind",
        what="Docker runs on another machine",
        why=f"DOCKER_HOST is {host}: it cannot mount what lies here",
        fix="unset DOCKER_HOST",
    )


def _check_rootless(client: Client, machine: Machine) -> Finding:
    """A rootless daemon serves, but keeps no limits where its cgroup is not delegated to it."""
    if client.daemon.get("MemoryLimit") and client.daemon.get("PidsLimit"):
        return ok("docker-kind", what="Docker is rootless")
    return warning(
        "docker-kind",
        what="Docker is rootless and keeps no limits",
        why="memory and processes of a stage are not bounded: its cgroup is not delegated",
        fix=machine.make_command(
            "sudo systemctl edit user@.service: [Service] Delegate=cpu cpuset io memory pids;"
            " then log out and in again"
        ),
    )
