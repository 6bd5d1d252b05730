"""NVIDIA GPUs in containers: the toolkit, what Docker knows of it, and a container that looks."""

import os
import re

from pipeline.doctor.finding import Finding, ok
from pipeline.doctor.nvidia import warn_of_gpu
from pipeline.doctor.situation import Situation
from pipeline.doctor.version import parse_version

_OLDEST_TOOLKIT = (1, 17)
_REFRESHING_TOOLKIT = (1, 18)
_REFRESHED = "/var/run/cdi/nvidia.yaml"
_CONFIGURE = "sudo nvidia-ctk runtime configure --runtime=docker; sudo systemctl restart docker"
_DRIVER_LIBRARY = re.compile(r"libcuda\.so\.(\d+\.[\d.]*\d)")
_DEVICE = re.compile(r"^(nvidia\d+|dxg)$", re.MULTILINE)
_REMOVE_S = 0.4


def check_toolkit(seen: Situation) -> Finding | None:
    """The NVIDIA Container Toolkit is here and new enough."""
    version = seen.nvidia.toolkit
    if not _applies(seen):
        return None
    if parse_version(version) >= _OLDEST_TOOLKIT:
        return ok("toolkit", what=f"NVIDIA Container Toolkit {version}")
    what = (
        f"NVIDIA Container Toolkit {version} is too old"
        if version
        else "no NVIDIA Container Toolkit"
    )
    return warn_of_gpu(
        seen,
        "toolkit",
        what=what,
        why="containers see the GPU through it; 1.17 or newer is needed",
        fix=seen.machine.find_fix("toolkit"),
    )


def check_runtime(seen: Situation) -> Finding | None:
    """Docker knows NVIDIA's runtime."""
    if not _applies(seen) or not seen.docker.daemon:
        return None
    if _has_runtime(seen):
        return ok("docker-gpu", what="Docker knows the runtime nvidia")
    return warn_of_gpu(
        seen,
        "docker-gpu",
        what="Docker does not know the runtime nvidia",
        why='containers with --gpus do not start: could not select device driver ""',
        fix=seen.machine.make_command(_CONFIGURE)
        if seen.nvidia.toolkit
        else seen.machine.find_fix("toolkit"),
    )


def check_cdi(seen: Situation) -> Finding | None:
    """The CDI specification, where there is one, is of the driver that runs."""
    if not _applies(seen):
        return None
    driver = seen.nvidia.gpus[0].driver
    for path, text in seen.nvidia.cdi.items():
        if (found := _DRIVER_LIBRARY.search(text)) and found[1] != driver:
            return warn_of_gpu(
                seen,
                "cdi",
                what=f"{path} is of driver {found[1]}",
                why=f"driver {driver} runs: containers that use it do not start",
                fix=_make_refresh(seen, path),
            )
    if seen.nvidia.cdi:
        return ok("cdi", what=f"CDI: {', '.join(seen.nvidia.cdi)}")
    if _has_runtime(seen) or not seen.nvidia.toolkit:
        return ok("cdi", what="no CDI specification; --gpus needs none")
    return warn_of_gpu(
        seen,
        "cdi",
        what="no CDI specification of NVIDIA GPUs",
        why="Docker knows neither the runtime nvidia nor the devices nvidia.com/gpu",
        fix=_make_refresh(seen, _REFRESHED),
    )


def _make_refresh(seen: Situation, path: str) -> str:
    """Return the line that writes the specification anew: a service does, from 1.18 on."""
    if path == _REFRESHED and parse_version(seen.nvidia.toolkit) >= _REFRESHING_TOOLKIT:
        line = "sudo systemctl restart nvidia-cdi-refresh.service"
    else:
        line = f"sudo nvidia-ctk cdi generate --output={path}"
    return seen.machine.make_command(line)


def check_container(seen: Situation) -> Finding | None:
    """A container of the train image really sees a GPU. Only where image and runtime are here."""
    docker, machine = seen.docker, seen.machine
    tag = next((docker.tags[name] for name in docker.tags if name.startswith("train")), "")
    if not _applies(seen) or tag not in docker.present or not _has_runtime(seen):
        return None
    assert docker.client is not None
    name = f"tristill-doctor-{os.getpid()}"
    answer = machine.ask(
        [
            *(docker.client.path, "run", "--rm", "--name", name, "--pull", "never"),
            *("--network", "none", "--read-only", "--cap-drop", "ALL", "--gpus", "all"),
            *("--entrypoint", "/bin/ls", tag, "/dev"),
        ],
        spare_s=_REMOVE_S,
    )
    if answer.code == 0 and (found := _DEVICE.findall(answer.out)):
        return ok("gpu-container", what=f"a container sees {', '.join(found)}")
    if answer.code is None:
        # The client is gone; the container, which may just have been made, must not stay.
        machine.ask([docker.client.path, "rm", "--force", name])
    return warn_of_gpu(
        seen,
        "gpu-container",
        what="a container does not see the GPU",
        why=answer.last_error or "its /dev has none",
        fix=machine.make_command(_CONFIGURE),
    )


def _applies(seen: Situation) -> bool:
    return bool(seen.nvidia.gpus and seen.docker.clients)


def _has_runtime(seen: Situation) -> bool:
    return "nvidia" in (seen.docker.daemon.get("Runtimes") or {})
