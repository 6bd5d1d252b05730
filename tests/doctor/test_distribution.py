"""os-release of any distribution gives one fix for each thing."""

import pytest

from pipeline.doctor.distribution import FIXES, parse_distribution
from tests.doctor.fake_host import OS_RELEASES, FakeHost


@pytest.mark.parametrize(
    "release", [*OS_RELEASES.values(), "", "nonsense\n=\n#ID=x\nNAME='", "ID="]
)
def test_there_is_one_fix_for_everything(release: str) -> None:
    distribution = parse_distribution(release)
    for fixes in FIXES.values():
        fix = distribution.choose(fixes)
        assert fix
        assert "\n" not in fix


@pytest.mark.parametrize(
    ("release", "docker", "compose"),
    [
        (
            "debian-12",
            "sudo apt-get install docker.io docker-compose",
            "sudo apt-get install docker-compose",
        ),
        (
            "debian",
            "sudo apt-get install docker.io docker-cli docker-buildx docker-compose",
            "sudo apt-get install docker-compose",
        ),
        (
            "ubuntu",
            "sudo apt-get install docker.io docker-buildx docker-compose-v2",
            "sudo apt-get install docker-compose-v2",
        ),
        (
            "fedora",
            "sudo dnf install moby-engine docker-buildx docker-compose",
            "sudo dnf install docker-compose",
        ),
        (
            "rhel",
            "sudo dnf install docker-ce (its repository: https://docs.docker.com/engine/install/)",
            "sudo dnf install docker-compose-plugin",
        ),
        (
            "arch",
            "sudo pacman -S docker docker-buildx docker-compose",
            "sudo pacman -S docker-compose",
        ),
        (
            "suse",
            "sudo zypper install docker docker-buildx docker-compose",
            "sudo zypper install docker-compose",
        ),
        (
            "other",
            "install Docker Engine: https://docs.docker.com/engine/install/",
            "install Docker's compose plugin: https://docs.docker.com/engine/install/",
        ),
    ],
)
def test_the_fix_is_the_distributions_own(release: str, docker: str, compose: str) -> None:
    distribution = parse_distribution(OS_RELEASES[release])
    assert distribution.choose(FIXES["docker"]) == docker
    assert distribution.choose(FIXES["compose"]) == compose


def test_a_host_may_keep_the_file_elsewhere(host: FakeHost) -> None:
    host.write("/usr/lib/os-release", OS_RELEASES["arch"])
    assert host.make_machine().find_fix("make") == "sudo pacman -S make"
