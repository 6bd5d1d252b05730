"""The images: what each holds, and the digest of everything that pins it.

An image is an environment: packages from hash-locked files, the one pinned llama.cpp where it is
needed, and variables that must stand before anything is imported. No code of ours is in it. The
digest is the same for every engine, so that an artifact made in a container is a hit for a virtual
environment and the other way round.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.key import REPOSITORY

LOCKS = REPOSITORY / "docker"
PYTHON_VERSION = "3.11"
CPU, CUDA = "cpu", "cuda"
ACCELERATORS = (CPU, CUDA)

LLAMA_LOCK = "llama.lock"
LLAMA_BUILD_LOCK = "llama-build.lock"
# GGML_NATIVE=OFF: the same instructions wherever it is compiled. Without the two UI switches the
# build would download the server's web page. The build number and commit have no repository here.
LLAMA_FLAGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DGGML_NATIVE=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_COMMIT=pinned",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_NUMBER=0",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)

# Our kernel, which writes what ggml and torch write: no fused multiply-add, or bytes change.
_KERNEL_NAMES = ("kquants.c", "kquants_blocks.h", "kquants_fp8.h", "kquants_lanes.h")
KERNEL_SOURCES = tuple(REPOSITORY / "pipeline" / "checkpoint" / name for name in _KERNEL_NAMES)
KERNEL_FLAGS = ("-O3", "-mavx2", "-ffp-contract=off", "-shared", "-fPIC")

_PYTHON_VARIABLES = {
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONSAFEPATH": "1",
    "TZ": "UTC",
}
# What a large request took goes back to the system. Else the C library, which learns from what is
# freed, keeps it for each thread: 600 MB after 96 large bodies, and 1 MB with this. A token's
# candidates, 12 bytes for each entry of the vocabulary, stay below: less would cost a tenth of the
# speed.
_SERVER_VARIABLES = _PYTHON_VARIABLES | {
    "MALLOC_MMAP_THRESHOLD_": "4194304",
    "MALLOC_TRIM_THRESHOLD_": "4194304",
}
# Loading in sequence and growing segments: else a 24 GB card runs out of memory while it loads.
_TORCH_VARIABLES = _PYTHON_VARIABLES | {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    # Threads that spin while they wait make a shared machine ten times slower.
    "OMP_WAIT_POLICY": "passive",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """What is in an image.

    `llama`: the tools, libraries and converter at `<prefix>/llama`. `binding`: the Python package
    llama_cpp over the same libraries. `locks` are installed in this order; `pins` are further files
    of docker/ that decide what is in it. Of the stages that run in it, `gpu_stages` see the GPUs.
    """

    name: str
    locks: tuple[str, ...]
    variables: Mapping[str, str]
    installed_bytes: int
    accelerator: str = CPU
    llama: bool = False
    binding: bool = False
    pins: tuple[str, ...] = ()
    gpu_stages: frozenset[str] = frozenset()
    only_in_containers: bool = False

    @property
    def kind(self) -> str:
        """The name that the image's variants share."""
        return self.name.removesuffix(f"-{CUDA}")


IMAGES = {
    image.name: image
    for image in (
        Image(
            name="convert",
            locks=("torch-cpu.lock", "convert.lock"),
            variables=_TORCH_VARIABLES,
            installed_bytes=1_300_000_000,
            llama=True,
            binding=True,
        ),
        Image(
            name="train",
            locks=("torch-cpu.lock", "train.lock"),
            variables=_TORCH_VARIABLES,
            installed_bytes=1_800_000_000,
        ),
        Image(
            name="serve",
            locks=("serve.lock",),
            variables=_SERVER_VARIABLES,
            installed_bytes=80_000_000,
            llama=True,
        ),
        Image(
            name="train-cuda",
            accelerator=CUDA,
            locks=("torch-cuda.lock", "train.lock"),
            variables=_TORCH_VARIABLES,
            installed_bytes=7_000_000_000,
            gpu_stages=frozenset({"evaluate.checkpoint", "sft.training"}),
        ),
        # NVIDIA's compiler is in a build stage of its Dockerfile alone.
        Image(
            name="serve-cuda",
            accelerator=CUDA,
            locks=("serve.lock",),
            variables=_SERVER_VARIABLES,
            installed_bytes=1_500_000_000,
            llama=True,
            pins=("llama-cuda.lock", "serve/backends", "serve/cuda.cmake"),
            gpu_stages=frozenset({"evaluate.served"}),
            only_in_containers=True,
        ),
        # Runs no stage: pytest and the linters, on the host.
        Image(
            name="test",
            locks=("test.lock",),
            variables=_PYTHON_VARIABLES,
            installed_bytes=150_000_000,
        ),
    )
}


def find_variant(kind: str, accelerator: str) -> Image:
    """Return the image of a kind for an accelerator."""
    return next(
        image for image in IMAGES.values() if (image.kind, image.accelerator) == (kind, accelerator)
    )


def make_environment_document(image: Image) -> dict[str, object]:
    """Return everything that pins the image, for hashing and for reading."""
    document: dict[str, object] = {
        "accelerator": image.accelerator,
        "binding": image.binding,
        "llama": make_llama_document() if image.llama else None,
        "locks": {name: _hash_file(LOCKS / name) for name in (*image.locks, *image.pins)},
        "python": PYTHON_VERSION,
        "variables": dict(image.variables),
    }
    if image.binding:
        document["kernel"] = {
            "flags": list(KERNEL_FLAGS),
            "sources": make_files_document(*KERNEL_SOURCES),
        }
    return document


def make_llama_document() -> dict[str, object]:
    """Return everything that pins llama.cpp."""
    return {"flags": list(LLAMA_FLAGS), "lock": _hash_file(LOCKS / LLAMA_LOCK)}


def make_files_document(*paths: Path) -> dict[str, str]:
    """Return the sha256 of each file by its name."""
    return {path.name: _hash_file(path) for path in paths}


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
