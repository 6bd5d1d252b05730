"""os-release -> which distribution this is, and the one line that mends each thing on it.

A fix is looked up by the release ("debian-12"), the distribution, and what that says it is like; ""
is for every other. Package names are those of the distributions' own archives where these have a
version that will do.
"""

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pipeline.engine.image import PYTHON_VERSION

_NVIDIA = "https://docs.nvidia.com/datacenter"
_TOOLKIT_GUIDE = f"{_NVIDIA}/cloud-native/container-toolkit/latest/install-guide.html"
_DRIVER_GUIDE = f"{_NVIDIA}/tesla/driver-installation-guide/"
_DOCKER_GUIDE = "https://docs.docker.com/engine/install/"
# Not in the distribution's own archive.
_TOOLKIT = f"nvidia-container-toolkit (its repository: {_TOOLKIT_GUIDE})"
_DRIVER = f"nvidia-open (its repository: {_DRIVER_GUIDE})"
_NO_PYTHON = f"uv python install {PYTHON_VERSION} (this distribution has no package of it)"
_APT_PYTHON = f"sudo apt-get install python{PYTHON_VERSION}-venv"


@dataclass(frozen=True)
class Distribution:
    """The names that it goes by, the most precise first."""

    names: tuple[str, ...]

    def choose(self, fixes: Mapping[str, str]) -> str:
        """Return the fix for the most precise name that has one."""
        return next(fixes[name] for name in (*self.names, "") if name in fixes)


def parse_distribution(text: str) -> Distribution:
    """Return the distribution that an os-release file describes; of no text, one without names."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            with suppress(ValueError):
                values[name] = "".join(shlex.split(value))
    name, version = values.get("ID", ""), values.get("VERSION_ID", "")
    like = values.get("ID_LIKE", "").split()
    return Distribution((f"{name}-{version}", name, *like) if name else ())


FIXES: Mapping[str, Mapping[str, str]] = {
    "python": {
        "debian-12": _APT_PYTHON,
        "ubuntu-22.04": _APT_PYTHON,
        "debian": _NO_PYTHON,
        "fedora": f"sudo dnf install python{PYTHON_VERSION}",
        "arch": _NO_PYTHON,
        "suse": f"sudo zypper install python{PYTHON_VERSION.replace('.', '')}",
        "": f"install Python {PYTHON_VERSION} with venv and ensurepip, as python{PYTHON_VERSION}",
    },
    "compilers": {
        "debian": "sudo apt-get install build-essential",
        "fedora": "sudo dnf install gcc gcc-c++",
        "arch": "sudo pacman -S base-devel",
        "suse": "sudo zypper install gcc gcc-c++",
        "": "install a C and a C++ compiler, as cc and c++",
    },
    "make": {
        "debian": "sudo apt-get install make",
        "fedora": "sudo dnf install make",
        "arch": "sudo pacman -S make",
        "suse": "sudo zypper install make",
        "": "install GNU make",
    },
    "docker": {
        "debian-12": "sudo apt-get install docker.io docker-compose",
        "debian": "sudo apt-get install docker.io docker-cli docker-buildx docker-compose",
        "ubuntu": "sudo apt-get install docker.io docker-buildx docker-compose-v2",
        "fedora": "sudo dnf install moby-engine docker-buildx docker-compose",
        "rhel": f"sudo dnf install docker-ce (its repository: {_DOCKER_GUIDE})",
        "arch": "sudo pacman -S docker docker-buildx docker-compose",
        "suse": "sudo zypper install docker docker-buildx docker-compose",
        "": f"install Docker Engine: {_DOCKER_GUIDE}",
    },
    "buildx": {
        "debian-12": f"sudo apt-get install docker-buildx-plugin (its repository: {_DOCKER_GUIDE})",
        "debian": "sudo apt-get install docker-buildx",
        "fedora": "sudo dnf install docker-buildx",
        "rhel": "sudo dnf install docker-buildx-plugin",
        "arch": "sudo pacman -S docker-buildx",
        "suse": "sudo zypper install docker-buildx",
        "": f"install Docker's buildx plugin: {_DOCKER_GUIDE}",
    },
    "compose": {
        "debian": "sudo apt-get install docker-compose",
        "ubuntu": "sudo apt-get install docker-compose-v2",
        "fedora": "sudo dnf install docker-compose",
        "rhel": "sudo dnf install docker-compose-plugin",
        "arch": "sudo pacman -S docker-compose",
        "suse": "sudo zypper install docker-compose",
        "": f"install Docker's compose plugin: {_DOCKER_GUIDE}",
    },
    "driver": {
        "debian": f"sudo apt-get install {_DRIVER}",
        "ubuntu": "sudo ubuntu-drivers install nvidia:580",
        "fedora": f"sudo dnf install {_DRIVER}",
        "arch": "sudo pacman -S nvidia-open nvidia-utils",
        "suse": f"sudo zypper install {_DRIVER}",
        "": f"install NVIDIA's driver: {_DRIVER_GUIDE}",
    },
    "toolkit": {
        "debian": f"sudo apt-get install {_TOOLKIT}",
        "fedora": f"sudo dnf install {_TOOLKIT}",
        "arch": "sudo pacman -S nvidia-container-toolkit",
        "suse": f"sudo zypper install {_TOOLKIT}",
        "": f"install the NVIDIA Container Toolkit: {_TOOLKIT_GUIDE}",
    },
}
