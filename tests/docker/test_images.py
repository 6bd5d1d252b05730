"""The real images, built for the CPU: what is in them, what is not, how large they are."""

import json
import re
import subprocess
import zlib
from functools import cache
from typing import Any

import pytest

from pipeline.engine import docker_client
from pipeline.engine.container_image import NAMES, find_image, make_tag
from pipeline.engine.image import CPU, IMAGES, LOCKS
from pipeline.engine.image_build import Variant, provide

pytestmark = pytest.mark.docker

_NAMES = [name for name in NAMES if IMAGES[name].accelerator == CPU]
_BASE = "tristill-base:bookworm"
_HARDENED = (
    *("docker", "run", "--rm", "--pull", "never", "--read-only", "--network", "none"),
    *("--user", "12345:12345", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    *("--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777"),
)
_IMPORTS = {
    "convert": "llama_cpp, numpy, sentencepiece, torch, transformers",
    "serve": "openai",
    "train": "bitsandbytes, datasets, peft, pyarrow, torch, transformers, trl",
}
_BUDGET_BYTES = {"convert": 480_000_000, "serve": 130_000_000, "train": 700_000_000}
_PIN = re.compile(r"^([a-z0-9-]+)==([^ ;]+)(?: ; ([^\\]+))?", re.MULTILINE)

# Runs in a container as root, so that it sees everything.
_SURVEY = """
import importlib.metadata, json, os, re
found = {"compilers": [], "dated": [], "leftovers": [], "setuid": []}
compiler = re.compile(r"(.*-)?(cc|cc1|cc1plus|gcc|g\\+\\+|c\\+\\+|clang|cpp|tcc|nvcc)(-[0-9.]+)?")
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    for name in folders + files:
        path = os.path.join(folder, name)
        status = os.lstat(path)
        if status.st_mode & 0o6000:
            found["setuid"].append(path)
        if compiler.fullmatch(name) and not os.path.isdir(path):
            found["compilers"].append(path)
        if name.endswith(".pyc") and open(path, "rb").read(8)[4:] != bytes([1, 0, 0, 0]):
            found["dated"].append(path)
for path in ("/root/.cache", "/tmp", "/var/cache/apt", "/var/lib/apt/lists", "/var/log", "/wheels",
             "/etc/pip.conf", "/root/.npmrc"):
    if os.path.isfile(path) or os.path.isdir(path) and os.listdir(path):
        found["leftovers"].append(path)
found["packages"] = {
    re.sub("[-_.]+", "-", each.metadata["Name"]).lower(): each.version
    for each in importlib.metadata.distributions(path=__import__("site").getsitepackages())
}
print(json.dumps(found))
"""


@pytest.fixture(scope="module", params=_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """An image's name; the image is built when this host lacks it."""
    return _provide(str(request.param))


@cache
def _provide(image: str) -> str:
    if not find_image(image):
        base = _BASE if docker_client.read_images([_BASE]) else ""
        provide(Variant(name=image, base=base), None)
    return image


def _run(argv: tuple[str, ...], image: str, *words: str) -> str:
    """Run a program of the image; return what it says."""
    whole = [*argv, "--entrypoint", words[0], make_tag(image), *words[1:]]
    told = subprocess.run(whole, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


@cache
def _survey(image: str) -> dict[str, Any]:
    argv = ("docker", "run", "--rm", "--pull", "never", "--network", "none", "--user", "0")
    found: dict[str, Any] = json.loads(_run(argv, image, "python", "-c", _SURVEY))
    return found


def _read_pins(image: str) -> dict[str, str]:
    """Return the packages that the image's locks name for Linux."""
    pins = {}
    for lock in IMAGES[image].locks:
        for project, version, marker in _PIN.findall((LOCKS / lock).read_text()):
            assert not marker, f"{project} in {lock} is for some hosts only"
            pins[project] = version
    return pins


def test_it_works_for_a_stranger_who_may_do_nothing(name: str) -> None:
    program = f"import {_IMPORTS[name]}, sys; print(sys.prefix, sys.flags.safe_path)"
    assert _run(_HARDENED, name, "python", "-c", program).splitlines()[-1] == "/opt/tristill True"


@pytest.mark.parametrize(
    ("image", "program"), [("convert", "llama-quantize"), ("serve", "llama-server")]
)
def test_llama_works_for_a_stranger_who_may_do_nothing(image: str, program: str) -> None:
    _run(_HARDENED, _provide(image), "sh", "-c", f"{program} --help 2>&1 | grep -qi usage")


def test_its_packages_are_those_of_its_locks(name: str) -> None:
    packages = _survey(name)["packages"]
    if IMAGES[name].binding:
        assert packages.pop("llama-cpp-python") in (LOCKS / "llama.lock").read_text()
    assert packages == _read_pins(name)


def test_nothing_in_it_changes_users(name: str) -> None:
    assert _survey(name)["setuid"] == []


def test_only_train_has_a_compiler(name: str) -> None:
    assert bool(_survey(name)["compilers"]) == (name == "train")


def test_the_compiler_makes_what_triton_makes() -> None:
    program = (
        "echo '#include <Python.h>' >/tmp/a.c && gcc -O3 -shared -fPIC"
        " -I$(python -c 'import sysconfig; print(sysconfig.get_paths()[\"include\"])')"
        " /tmp/a.c -o /tmp/a.so && python -c 'import ctypes; ctypes.CDLL(\"/tmp/a.so\")'"
    )
    _run(_HARDENED, _provide("train"), "sh", "-c", program)


def test_no_cache_log_or_setting_of_the_build_is_in_it(name: str) -> None:
    assert _survey(name)["leftovers"] == []


def test_its_bytecode_is_not_checked_against_times(name: str) -> None:
    assert _survey(name)["dated"] == []


def test_its_history_names_nothing_of_this_machine(name: str) -> None:
    argv = ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", make_tag(name)]
    told = subprocess.run(argv, capture_output=True, text=True, check=True)
    words = ("pip", "secret", "proxy", "file:", str(LOCKS.parent))
    assert [word for word in words if word in told.stdout] == []


def test_it_is_within_its_budget(name: str) -> None:
    """Measured on what `docker save` writes, at zlib's lowest level: a registry holds less."""
    argv = ["docker", "save", make_tag(name)]
    size_bytes, packer = 0, zlib.compressobj(1)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        while chunk := saving.stdout.read(1 << 20):
            size_bytes += len(packer.compress(chunk))
    assert saving.returncode == 0
    assert size_bytes <= _BUDGET_BYTES[name]
