"""`python -m pipeline.engine.locks`: resolve docker/*.in into hash-locked docker/*.lock with uv.

A lock's present versions are kept where they still fit; with `--upgrade` the newest are taken.
torch-cpu.lock and llama.lock are written by hand: each pins one release by its hashes.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence

from pipeline.engine.image import LOCKS, PYTHON_VERSION
from pipeline.errors import HostError, TristillError

NAMES = ("convert", "llama-build", "llama-cuda", "serve", "serve-ui", "test", "train")


def make_argv(name: str, uv: str) -> list[str]:
    """Return the command that writes one lock, to be run in docker/.

    No header, annotation or configuration: a lock holds no index, path or name of this machine.
    """
    return [
        *(uv, "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"),
        *("--generate-hashes", "--python-version", PYTHON_VERSION, "--python-platform", "linux"),
        *("--override", "no-torch.override", "--output-file", f"{name}.lock", f"{name}.in"),
    ]


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
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
