"""The doctor: every check in order, on one screen."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from pipeline.artifact.store import Store
from pipeline.doctor import daemon, disk, docker, host, nvidia, nvidia_container, recipe
from pipeline.doctor.finding import Finding
from pipeline.doctor.machine import Machine
from pipeline.doctor.situation import Needs, Situation

CHECKS: tuple[Callable[[Situation], Finding | None], ...] = (
    recipe.check_recipe,
    docker.check_engine,
    host.check_python,
    host.check_image_python,
    host.check_compilers,
    host.check_make,
    disk.check_environments,
    disk.check_store,
    disk.check_space,
    disk.check_inodes,
    disk.check_locks,
    host.check_memory,
    host.check_shared_memory,
    host.check_clock,
    recipe.check_hub_token,
    docker.check_client,
    daemon.check_daemon,
    daemon.check_kind,
    docker.check_buildx,
    docker.check_compose,
    docker.check_images,
    nvidia.check_gpu,
    nvidia.check_driver,
    nvidia.check_vram,
    nvidia_container.check_toolkit,
    nvidia_container.check_runtime,
    nvidia_container.check_cdi,
    nvidia_container.check_container,
)
"""What does not apply here gives None."""

# What the venv engine alone needs.
_OF_VENV = frozenset({"image-python", "compilers", "environments"})


def read_situation(machine: Machine, needs: Needs, store: Store) -> Situation:
    """Return everything that the checks judge; the programs are asked side by side."""
    with ThreadPoolExecutor() as pool:
        of_docker = pool.submit(docker.read_docker, machine, needs.images)
        of_nvidia = pool.submit(nvidia.read_nvidia, machine)
        of_host = host.read_host(machine, store.root)
        environments = disk.read_environments(needs, interpreter=of_host.interpreter)
        return Situation(
            machine=machine,
            needs=needs,
            host=of_host,
            environments=environments,
            environments_place=disk.read_place(environments.directory),
            store_place=disk.read_place(store.root),
            docker=of_docker.result(),
            nvidia=of_nvidia.result(),
        )


def examine(seen: Situation) -> list[Finding]:
    """Return a finding per check that applies, in order."""
    found = [finding for check in CHECKS if (finding := check(seen))]
    elsewhere = docker.runs_in_docker(seen) or "TRISTILL_IMAGE" in seen.machine.variables
    return [_relieve(each) for each in found] if elsewhere else found


def _relieve(finding: Finding) -> Finding:
    """Return the finding as that of an engine which need not be taken."""
    if finding.check in _OF_VENV and finding.state == "problem":
        return replace(finding, state="warning", why=f"{finding.why}; only engine venv needs it")
    return finding
