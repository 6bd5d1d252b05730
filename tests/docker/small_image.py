"""A small image in the place of every real one: Debian and Python, laid out as the real ones are.

It is made once; its tag holds the digest of how. `python -m tests.docker.small_image build STORE
ROWS` builds an artifact of so many rows in it, `... serve PORT` serves files: processes for tests
to end.
"""

import hashlib
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from pipeline.artifact.store import open_store
from pipeline.engine import container_image
from pipeline.engine.docker_engine import DockerEngine
from pipeline.engine.image import IMAGES
from pipeline.errors import INTERRUPTED, TristillError
from pipeline.log import start_log
from tests.artifact.small_build import build_small, make_wide_rules

BASE = "tristill-base:bookworm"

VARIABLES = {
    **IMAGES["train"].variables,
    "HOME": "/tmp",
    "PATH": "/opt/tristill/bin:/usr/bin:/bin",
    "PYTHONPATH": "/tristill",
    "TMPDIR": "/tmp",
    "USER": "tristill",
}
_DOCKERFILE = f"""
FROM {BASE}
RUN apt-get update -qq \\
 && apt-get install -y -qq --no-install-recommends python3.11 >/dev/null \\
 && rm -rf /var/lib/apt/lists/* \\
 && mkdir -p /opt/tristill/bin \\
 && ln -s /usr/bin/python3.11 /opt/tristill/bin/python
ENV {" ".join(f"{name}={value}" for name, value in sorted(VARIABLES.items()))}
USER 65532:65532
ENTRYPOINT ["/bin/false"]
HEALTHCHECK CMD ["/bin/false"]
"""
TAG = f"tristill-small:{hashlib.sha256(_DOCKERFILE.encode()).hexdigest()[:16]}"


def make_small_tag(name: str) -> str:
    return TAG


def make_no_labels(name: str) -> dict[str, str]:
    return {}


@cache
def make_small_image() -> None:
    """Make the image unless it is there; skip the test where its base is not."""
    if _is_here(TAG):
        return
    if not _is_here(BASE):
        pytest.skip(f"no image {BASE}: docker/base makes it")
    argv = ["docker", "build", "--quiet", "--network", "host", "--tag", TAG, "-"]
    told = subprocess.run(argv, input=_DOCKERFILE, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


def _is_here(tag: str) -> bool:
    argv = ["docker", "image", "inspect", tag]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def main(argv: list[str]) -> int:
    """Build or serve; return the exit code that the command line would."""
    start_log()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    container_image.make_tag = make_small_tag
    container_image.make_labels = make_no_labels
    verb, *rest = argv
    try:
        if verb == "serve":
            words = ["bin/python", "-m", "http.server", "--bind", DockerEngine().listens_on, *rest]
            return DockerEngine().interact("serve", words, port=int(rest[0]))
        rules = make_wide_rules(int(rest[1]))[:1]
        build_small(open_store(Path(rest[0])), rules, ["north"], engine=DockerEngine())
    except TristillError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
