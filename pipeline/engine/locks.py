"""`python -m pipeline.engine.locks`: resolve docker/*.in into hash-locked docker/*.lock with uv.

A lock's present versions are kept where they still fit; with `--upgrade` the newest are taken.
torch-cpu.lock and llama.lock are written by hand: each pins one release by its hashes. Beside them
wheels.json says how large the wheels of the train image's locks are: what a GPU host must fetch.
"""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator, Sequence

from pipeline.engine.container_image import WHEELS
from pipeline.engine.image import IMAGES, LOCKS, PYTHON_VERSION, make_files_document
from pipeline.errors import HostError, TristillError

TORCH_CUDA = "torch-cuda"
# In this order: torch-cuda takes train's versions.
NAMES = ("convert", "llama-build", "llama-cuda", "serve", "serve-ui", "test", "train", TORCH_CUDA)

_PIN = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)
_PLATFORM = ("--python-version", PYTHON_VERSION, "--python-platform", "linux")


def make_argv(name: str, uv: str) -> list[str]:
    """Return the command that writes one lock, to be run in docker/.

    No header, annotation or configuration: a lock holds no index, path or name of this machine.
    """
    return [
        *(uv, "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"),
        *("--generate-hashes", *_PLATFORM, *_make_options(name)),
        *("--output-file", f"{name}.lock", f"{name}.in"),
    ]


def _make_options(name: str) -> list[str]:
    """Return what keeps torch out of a lock, or out of torch's what train.lock has already."""
    if name != TORCH_CUDA:
        return ["--override", "no-torch.override"]
    shared = _PIN.findall((LOCKS / "train.lock").read_text(encoding="utf-8"))
    return [f"--no-emit-package={project}" for project in shared]


def measure_wheels(name: str, uv: str) -> int:
    """Return the bytes of all wheels of a lock, as the servers that hold them say."""
    argv = [
        *(uv, "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-deps"),
        *("--format", "pylock.toml", *_PLATFORM, f"{name}.lock"),
    ]
    answer = subprocess.run(argv, cwd=LOCKS, capture_output=True, text=True, check=True)
    return sum(map(_ask_size, _list_wheels(tomllib.loads(answer.stdout))))


def _list_wheels(document: dict[str, list[dict[str, list[dict[str, str]]]]]) -> Iterator[str]:
    """Yield the address of each package's wheel for x86_64."""
    for package in document["packages"]:
        urls = [wheel["url"] for wheel in package["wheels"]]
        yield next(url for url in urls if url.endswith(("x86_64.whl", "any.whl")))


def _ask_size(url: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=60) as answer:
        return int(answer.headers["Content-Length"])


def _write_sizes(uv: str) -> None:
    locks = IMAGES["train-cuda"].locks
    digests = make_files_document(*(LOCKS / lock for lock in locks))
    document = {
        lock: {
            "bytes": measure_wheels(lock.removesuffix(".lock"), uv),
            "sha256": digests[lock],
        }
        for lock in locks
    }
    WHEELS.write_text(f"{json.dumps(document, indent=2, sort_keys=True)}\n", encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Write every lock."""
    try:
        uv = shutil.which("uv")
        if uv is None:
            raise HostError(
                "locks cannot be resolved", on="uv", why="not on PATH", then="pip install uv"
            )
        for name in NAMES:
            argv = [*make_argv(name, uv), *arguments]
            subprocess.run(argv, cwd=LOCKS, stdout=subprocess.DEVNULL, check=True)
        _write_sizes(uv)
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
