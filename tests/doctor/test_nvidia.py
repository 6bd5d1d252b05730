"""A GPU that cannot be used is told with its one fix; without one the build runs on the CPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.doctor import nvidia
from pipeline.engine.container_image import make_tag
from tests.doctor.fake_host import NEEDS, SHORT_S, FakeHost, make_docker_info

_H200 = "NVIDIA H200, 580.95.05, 9.0, 143771, 143167\n"
_RUNTIMES = {"nvidia": {"path": "nvidia-container-runtime"}, "runc": {"path": "runc"}}
_CONFIGURE = "sudo nvidia-ctk runtime configure --runtime=docker; sudo systemctl restart docker"
_GUIDE = "https://docs.nvidia.com/datacenter"
_DEBIAN_DRIVER = (
    f"sudo apt-get install nvidia-open (its repository: {_GUIDE}/tesla/driver-installation-guide/)"
)
_DEBIAN_TOOLKIT = (
    "sudo apt-get install nvidia-container-toolkit (its repository:"
    f" {_GUIDE}/cloud-native/container-toolkit/latest/install-guide.html)"
)


@pytest.fixture(autouse=True)
def debian(host: FakeHost) -> None:
    host.write("/etc/os-release", "ID=debian\nVERSION_ID=12\n")


def _add_gpu(host: FakeHost, csv: str = _H200) -> None:
    host.add_program("nvidia-smi", {"--query-gpu=name,driver_version,compute_cap,": csv})


def _add_toolkit(host: FakeHost, version: str = "1.17.8") -> None:
    told = f"NVIDIA Container Toolkit CLI version {version}\ncommit: f202b80a9b9d\n"
    host.add_program("nvidia-ctk", {"--version": told})


def _put_on_the_bus(host: FakeHost, device_class: str = "0x030200") -> None:
    host.write("/sys/bus/pci/devices/0000:17:00.0/vendor", "0x10de\n")
    host.write("/sys/bus/pci/devices/0000:17:00.0/class", f"{device_class}\n")


def test_a_host_without_a_gpu_builds_on_the_cpu(host: FakeHost) -> None:
    found = host.examine()
    assert (found["gpu"].state, found["gpu"].what) == ("warning", "no NVIDIA GPU")
    assert found["gpu"].why == "the build runs on the CPU"
    assert not {"driver", "vram", "toolkit", "docker-gpu", "cdi", "gpu-container"} & set(found)


def test_a_recipe_that_wants_a_gpu_makes_it_a_problem(host: FakeHost) -> None:
    found = host.examine(needs=replace(NEEDS, wants_gpu=True))
    assert found["gpu"].state == "problem"


def test_a_gpu_without_a_driver(host: FakeHost) -> None:
    _put_on_the_bus(host)
    found = host.examine()["gpu"]
    assert (found.state, found.what) == ("warning", "an NVIDIA GPU without its driver")
    assert found.fix == _DEBIAN_DRIVER


def test_a_network_card_of_the_same_maker_is_no_gpu(host: FakeHost) -> None:
    _put_on_the_bus(host, device_class="0x020000")
    assert host.examine()["gpu"].what == "no NVIDIA GPU"


@pytest.mark.parametrize(
    ("told", "fix"),
    [
        (
            "Failed to initialize NVML: Driver/library version mismatch\n"
            "NVML library version: 580.95\n",
            "sudo reboot (the loaded driver is not the installed one)",
        ),
        (
            "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make"
            " sure that the latest NVIDIA driver is installed and running.\n\n",
            _DEBIAN_DRIVER,
        ),
        ('Field "compute_cap" is not a valid field to query.\n\n', _DEBIAN_DRIVER),
        ("Unable to determine the device handle for GPU0\n", "sudo nvidia-smi (it says more)"),
    ],
)
def test_a_driver_that_tells_of_no_gpu(host: FakeHost, told: str, fix: str) -> None:
    _put_on_the_bus(host)
    host.add_program("nvidia-smi", told, code=9)
    found = host.examine()["gpu"]
    assert (found.state, found.what) == ("warning", "nvidia-smi tells of no GPU")
    assert found.why.startswith(told.splitlines()[0])
    assert found.fix == fix


def test_a_driver_that_takes_too_long(host: FakeHost) -> None:
    _put_on_the_bus(host)
    host.add_script("nvidia-smi", "/bin/sleep 600")
    found = host.examine(host.make_machine(each_s=SHORT_S))["gpu"]
    assert found.fix == "sudo nvidia-smi -pm 1 (the driver then stays loaded)"


def test_a_driver_without_a_gpu(host: FakeHost) -> None:
    host.add_program("nvidia-smi", "No devices were found\n", code=6)
    assert host.examine()["gpu"].what == "no NVIDIA GPU"


def test_gpus_are_named(host: FakeHost) -> None:
    _add_gpu(host, _H200 + "NVIDIA GB10, 580.95.05, 12.1, [N/A], [N/A]\n")
    found = host.examine()
    assert found["gpu"].what == (
        "NVIDIA H200, compute capability 9.0; NVIDIA GB10, compute capability 12.1"
    )
    assert found["driver"].what == "driver 580.95.05 is new enough for CUDA 13"
    assert found["vram"].what == "150.1 GB of VRAM are free, training needs 20.0 GB"
    assert {found[name].state for name in ("gpu", "driver", "vram")} == {"ok"}


def test_a_gpu_whose_memory_is_not_told(host: FakeHost) -> None:
    _add_gpu(host, "NVIDIA GB10, 580.95.05, 12.1, [N/A], [N/A]\n")
    found = host.examine()["vram"]
    assert (found.state, found.what) == (
        "ok",
        "training needs 20.0 GB; what is free is not known",
    )


def test_a_gpu_of_old(host: FakeHost) -> None:
    _add_gpu(host, "Tesla V100-SXM2-32GB, 580.95.05, 7.0, 32768, 32000\n")
    found = host.examine()["gpu"]
    assert (found.state, found.fix) == (
        "warning",
        "use a host with a newer GPU, or build on the CPU",
    )
    assert found.what == "Tesla V100-SXM2-32GB, compute capability 7.0"


@pytest.mark.parametrize(
    ("version", "cuda", "state"),
    [
        ("535.261.03", 13, "warning"),
        ("535.261.03", 12, "ok"),
        ("470.256.02", 12, "warning"),
        ("580.65.06", 13, "ok"),
    ],
)
def test_a_driver_older_than_the_images_cuda(
    host: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    *,
    version: str,
    cuda: int,
    state: str,
) -> None:
    lock = host.home / "torch-cuda.lock"
    lock.write_text(f"numpy==2.4.4 \\\n    --hash=sha256:0\nnvidia-cuda-runtime=={cuda}.0.96 \\\n")
    monkeypatch.setattr(nvidia, "_CUDA_LOCK", lock)
    _add_gpu(host, _H200.replace("580.95.05", version))
    found = host.examine()["driver"]
    assert found.state == state
    if state == "warning":
        assert found.what == f"driver {version} is too old"
        assert found.why == f"CUDA {cuda} needs driver {({12: 525, 13: 580})[cuda]} or newer"
        assert found.fix == _DEBIAN_DRIVER


def test_vram_that_other_programs_hold(host: FakeHost) -> None:
    _add_gpu(host, "NVIDIA L4, 580.95.05, 8.9, 23034, 1034\n")
    found = host.examine()["vram"]
    assert (found.state, found.fix) == ("warning", "nvidia-smi shows these programs: end them")
    assert found.what == "1.1 GB of VRAM are free, training needs 20.0 GB"


def test_vram_that_no_gpu_has(host: FakeHost) -> None:
    _add_gpu(host, "NVIDIA T1000, 580.95.05, 8.6, 8192, 8000\n")
    found = host.examine()["vram"]
    assert found.why == "no GPU of this host has that much"
    assert found.fix == (
        "in the recipe lower [dataset] sequence_length or [train] batch_size, or set [train]"
        ' method = "qlora"'
    )


def _add_docker(host: FakeHost, looks: str = "", *, code: int = 0, error: str = "") -> None:
    host.add_script(
        "docker",
        "\n".join(
            [
                f'echo "$*" >>{host.home}/calls',
                'case "$1" in',
                f"info) cat <<'X'\n{make_docker_info(Runtimes=_RUNTIMES)}\nX\n;;",
                f"image) echo {make_tag('train')} ;;",
                f"run) {looks or 'true'}; echo '{error}' >&2; exit {code} ;;",
                "esac",
            ]
        ).replace("cat <<", "/bin/cat <<"),
    )


def test_no_container_toolkit(host: FakeHost) -> None:
    _add_gpu(host)
    host.add_program("docker", {"info ": make_docker_info()})
    found = host.examine()
    assert found["toolkit"].what == "no NVIDIA Container Toolkit"
    assert found["toolkit"].fix == found["docker-gpu"].fix == _DEBIAN_TOOLKIT


def test_an_old_container_toolkit(host: FakeHost) -> None:
    _add_gpu(host)
    _add_toolkit(host, "1.14.3")
    host.add_program("docker", {"info ": make_docker_info(Runtimes=_RUNTIMES)})
    found = host.examine()
    assert found["toolkit"].what == "NVIDIA Container Toolkit 1.14.3 is too old"
    assert found["toolkit"].fix == _DEBIAN_TOOLKIT
    assert found["docker-gpu"].state == "ok"


def test_a_runtime_that_docker_does_not_know(host: FakeHost) -> None:
    _add_gpu(host)
    _add_toolkit(host)
    host.add_program("docker", {"info ": make_docker_info()})
    found = host.examine()
    assert found["toolkit"].what == "NVIDIA Container Toolkit 1.17.8"
    assert found["docker-gpu"].what == "Docker does not know the runtime nvidia"
    assert found["docker-gpu"].fix == _CONFIGURE
    assert found["cdi"].fix == ("sudo nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml")
    assert "gpu-container" not in found


def _make_cdi(driver: str) -> str:
    return (
        "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ncontainerEdits:\n  mounts:\n"
        f"  - hostPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{driver}\n"
    )


@pytest.mark.parametrize(
    ("path", "toolkit", "fix"),
    [
        (
            "/etc/cdi/nvidia.yaml",
            "1.18.2",
            "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        ),
        (
            "/var/run/cdi/nvidia.yaml",
            "1.17.8",
            "sudo nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml",
        ),
        (
            "/var/run/cdi/nvidia.yaml",
            "1.18.2",
            "sudo systemctl restart nvidia-cdi-refresh.service",
        ),
    ],
)
def test_a_cdi_specification_of_another_driver(
    host: FakeHost, path: str, toolkit: str, fix: str
) -> None:
    _add_gpu(host)
    _add_toolkit(host, toolkit)
    _add_docker(host)
    host.write(path, _make_cdi("580.65.06"))
    found = host.examine()["cdi"]
    assert (found.state, found.what) == ("warning", f"{path} is of driver 580.65.06")
    assert found.fix == fix
    host.write(path, _make_cdi("580.95.05"))
    assert host.examine()["cdi"].what == f"CDI: {path}"


def test_a_container_that_sees_the_gpu(host: FakeHost) -> None:
    _add_gpu(host)
    _add_toolkit(host)
    _add_docker(host, "echo full null nvidia-uvm nvidia0 nvidia1 | /usr/bin/tr ' ' '\\n'")
    found = host.examine()["gpu-container"]
    assert (found.state, found.what) == ("ok", "a container sees nvidia0, nvidia1")
    (run,) = [line for line in (host.home / "calls").read_text().splitlines() if "run " in line]
    for words in ("--rm ", "--pull never", "--network none", "--read-only", "--gpus all"):
        assert words in run


def test_a_container_that_does_not_see_the_gpu(host: FakeHost) -> None:
    _add_gpu(host)
    _add_toolkit(host)
    told = 'docker: Error response from daemon: could not select device driver "" with'
    _add_docker(host, code=125, error=told)
    found = host.examine()["gpu-container"]
    assert (found.state, found.what) == ("warning", "a container does not see the GPU")
    assert (found.why, found.fix) == (told, _CONFIGURE)


def test_a_container_that_hangs_is_removed(host: FakeHost) -> None:
    _add_gpu(host)
    _add_toolkit(host)
    _add_docker(host, "/bin/sleep 600")
    found = host.examine(host.make_machine(each_s=SHORT_S))["gpu-container"]
    assert "no answer within 0.5 s" in found.why
    calls = (host.home / "calls").read_text().splitlines()
    (name,) = [line.split()[3] for line in calls if line.startswith("run ")]
    assert calls[-1] == f"rm --force {name}"


def test_without_the_image_no_container_is_started(host: FakeHost) -> None:
    _add_gpu(host)
    _add_toolkit(host)
    host.add_program(
        "docker", {"info ": make_docker_info(Runtimes=_RUNTIMES), "image ls ": "other:1\n"}
    )
    assert "gpu-container" not in host.examine()


def test_windows_keeps_the_driver_elsewhere(host: FakeHost) -> None:
    tools = host.root / "usr/lib/wsl/lib"
    host.add_program("nvidia-smi", _H200, directory=tools)
    assert host.examine()["gpu"].state == "ok"
    assert Path(tools, "nvidia-smi").is_file()
