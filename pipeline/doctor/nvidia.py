"""NVIDIA GPUs, as the host sees them: the driver, what it drives, and what fits."""

import re
from collections.abc import Iterator
from contextlib import suppress

from pipeline.doctor.finding import Finding, ok, problem, show_size, warning
from pipeline.doctor.machine import Machine
from pipeline.doctor.situation import Gpu, Nvidia, Situation
from pipeline.doctor.version import parse_version
from pipeline.engine.image import LOCKS

_FIELDS = "name,driver_version,compute_cap,memory.total,memory.free"
_QUERY = (f"--query-gpu={_FIELDS}", "--format=csv,noheader,nounits")
# Windows keeps it where no PATH leads.
_WSL_TOOL = "/usr/lib/wsl/lib/nvidia-smi"
_WSL_DEVICE = "/dev/dxg"
_VENDOR, _DISPLAY = "0x10de", "0x03"
_CDI = ("/etc/cdi", "/var/run/cdi")
_CDI_SUFFIXES = (".json", ".yaml", ".yml")

# NVIDIA's minor-version compatibility: the oldest driver of each CUDA.
_OLDEST_DRIVERS = {11: 450, 12: 525, 13: 580}
_CUDA = 13
_CUDA_LOCK = LOCKS / "torch-cuda.lock"
_CUDA_PACKAGE = re.compile(r"^(?:nvidia-cuda-runtime\S*?|cuda-toolkit\S*?)==(\d+)", re.MULTILINE)
# bfloat16, and the oldest that the server is compiled for.
_OLDEST_CAPABILITY = (8, 0)


def read_nvidia(machine: Machine) -> Nvidia:
    """Return what the driver and the container toolkit say."""
    tool = machine.find_program("nvidia-smi")
    if tool is None and machine.at(_WSL_TOOL).is_file():
        tool = machine.at(_WSL_TOOL)
    gpus, obstacle = tuple[Gpu, ...](), ""
    if tool is not None:
        answer = machine.ask([tool, *_QUERY])
        if answer.code == 0:
            gpus = tuple(filter(None, map(_parse_gpu, answer.out.splitlines())))
        if not gpus:
            # It tells its errors on either stream, the error in the first line.
            told = answer.error.strip() or answer.out.strip() or "it names no GPU"
            obstacle = told.splitlines()[0]
    return Nvidia(
        is_here=any(_find_on_the_bus(machine)) or machine.at(_WSL_DEVICE).exists(),
        has_tool=tool is not None,
        gpus=gpus,
        obstacle=obstacle,
        toolkit=_read_toolkit(machine) if gpus else "",
        cdi=dict(_read_cdi(machine)) if gpus else {},
    )


def _parse_gpu(line: str) -> Gpu | None:
    """Return the GPU of one line; None when it is none. A value may be "[N/A]"."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != 5:
        return None
    name, driver, capability, total, free = cells
    major, *minor = parse_version(capability) or (0,)
    return Gpu(
        name=name,
        driver=driver,
        capability=(major, minor[0]) if minor else None,
        total_bytes=int(total) << 20 if total.isdigit() else None,
        free_bytes=int(free) << 20 if free.isdigit() else None,
    )


def _find_on_the_bus(machine: Machine) -> Iterator[str]:
    """Yield the PCI address of each display device of NVIDIA's, driver or not."""
    with suppress(OSError):
        for device in machine.at("/sys/bus/pci/devices").iterdir():
            path = f"/sys/bus/pci/devices/{device.name}"
            vendor = machine.read(f"{path}/vendor").strip()
            if vendor == _VENDOR and machine.read(f"{path}/class").startswith(_DISPLAY):
                yield device.name


def _read_toolkit(machine: Machine) -> str:
    path = machine.find_program("nvidia-ctk")
    if path is None:
        return ""
    told = re.search(r"version (\d\S*)", machine.ask([path, "--version"]).out)
    return told[1] if told else "unknown"


def _read_cdi(machine: Machine) -> Iterator[tuple[str, str]]:
    """Yield path and text of each CDI specification of NVIDIA GPUs."""
    for directory in _CDI:
        with suppress(OSError):
            for path in sorted(machine.at(directory).iterdir()):
                text = machine.read(f"{directory}/{path.name}")
                if path.suffix in _CDI_SUFFIXES and "nvidia.com/gpu" in text:
                    yield f"{directory}/{path.name}", text


def read_cuda() -> int:
    """Return the major version of CUDA in the GPU images."""
    with suppress(OSError):
        if found := _CUDA_PACKAGE.search(_CUDA_LOCK.read_text(encoding="utf-8")):
            return int(found[1])
    return _CUDA


def warn_of_gpu(seen: Situation, check: str, *, what: str, why: str, fix: str) -> Finding:
    """Return a problem where the recipe wants a GPU, else a warning."""
    told = problem if seen.needs.wants_gpu else warning
    return told(check, what=what, why=why, fix=fix)


def check_gpu(seen: Situation) -> Finding:
    """A GPU is here, its driver runs, and it is not too old."""
    nvidia = seen.nvidia
    if not nvidia.gpus:
        return _explain_absence(seen)
    old = [gpu for gpu in nvidia.gpus if gpu.capability and gpu.capability < _OLDEST_CAPABILITY]
    if len(old) < len(nvidia.gpus):
        return ok("gpu", what="; ".join(map(_describe, nvidia.gpus)))
    return warn_of_gpu(
        seen,
        "gpu",
        what="; ".join(map(_describe, old)),
        why="compute capability 8.0 (Ampere) or newer is needed for bfloat16",
        fix="use a host with a newer GPU, or build on the CPU",
    )


def _describe(gpu: Gpu) -> str:
    capability = ".".join(map(str, gpu.capability)) if gpu.capability else "unknown"
    return f"{gpu.name}, compute capability {capability}"


def _explain_absence(seen: Situation) -> Finding:
    nvidia = seen.nvidia
    if nvidia.is_here and nvidia.has_tool:
        return _explain_driver(seen)
    if nvidia.is_here:
        return warn_of_gpu(
            seen,
            "gpu",
            what="an NVIDIA GPU without its driver",
            why="there is no nvidia-smi; the build runs on the CPU",
            fix=seen.machine.find_fix("driver"),
        )
    return warn_of_gpu(
        seen,
        "gpu",
        what="no NVIDIA GPU",
        why="the build runs on the CPU",
        fix="none is needed; a large model wants a host with one",
    )


def _explain_driver(seen: Situation) -> Finding:
    """The driver is installed and does not tell of a GPU."""
    told = seen.nvidia.obstacle
    if "mismatch" in told:
        fix = seen.machine.make_command("sudo reboot (the loaded driver is not the installed one)")
    elif "no answer" in told:
        fix = seen.machine.make_command("sudo nvidia-smi -pm 1 (the driver then stays loaded)")
    elif "not a valid field" in told or "couldn't communicate" in told:
        fix = seen.machine.find_fix("driver")
    else:
        fix = seen.machine.make_command("sudo nvidia-smi (it says more)")
    return warn_of_gpu(
        seen,
        "gpu",
        what="nvidia-smi tells of no GPU",
        why=f"{told}; the build runs on the CPU",
        fix=fix,
    )


def check_driver(seen: Situation) -> Finding | None:
    """The driver is new enough for the images' CUDA."""
    if not seen.nvidia.gpus:
        return None
    cuda = read_cuda()
    oldest = _OLDEST_DRIVERS[cuda]
    version = seen.nvidia.gpus[0].driver
    if parse_version(version) >= (oldest,):
        return ok("driver", what=f"driver {version} is new enough for CUDA {cuda}")
    return warn_of_gpu(
        seen,
        "driver",
        what=f"driver {version} is too old",
        why=f"CUDA {cuda} needs driver {oldest} or newer",
        fix=seen.machine.find_fix("driver"),
    )


def check_vram(seen: Situation) -> Finding | None:
    """Some GPU has the memory free that the training needs."""
    needed = seen.needs.train_vram_bytes
    frees = [gpu.free_bytes for gpu in seen.nvidia.gpus if gpu.free_bytes is not None]
    totals = [gpu.total_bytes for gpu in seen.nvidia.gpus if gpu.total_bytes is not None]
    if not seen.nvidia.gpus:
        return None
    if not frees:
        return ok("vram", what=f"training needs {show_size(needed)}; what is free is not known")
    if max(frees) >= needed:
        told = f"{show_size(max(frees))} of VRAM are free, training needs {show_size(needed)}"
        return ok("vram", what=told)
    taken = max(totals, default=0) >= needed
    return warn_of_gpu(
        seen,
        "vram",
        what=f"{show_size(max(frees))} of VRAM are free, training needs {show_size(needed)}",
        why="other programs hold the rest" if taken else "no GPU of this host has that much",
        fix="nvidia-smi shows these programs: end them"
        if taken
        else "in the recipe lower [dataset] sequence_length or [train] batch_size, or set [train]"
        ' method = "qlora"',
    )
