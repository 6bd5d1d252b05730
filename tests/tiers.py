"""Which tests run where: a file's tier is the image whose packages it needs, or the host.

A file says so by a line `pytestmark = pytest.mark.train` (or convert, or serve, or docker: the host
with a Docker engine). It is read as text, since importing a file in another tier fails for want of
its packages.
"""

import re
from collections.abc import Iterable
from pathlib import Path

HOST = "host"
DOCKER = "docker"
TIERS = (HOST, "convert", "serve", "train", DOCKER)

_MARK = re.compile(r"^pytestmark = .*\bpytest\.mark\.(convert|serve|train|docker)\b", re.MULTILINE)


def read_tier(path: Path) -> str:
    """Return the tier of one test file."""
    mark = _MARK.search(path.read_text(encoding="utf-8"))
    return mark[1] if mark else HOST


def find_tiers(paths: Iterable[Path]) -> list[str]:
    """Return the tiers of the test files at or under the paths, in order."""
    found = set()
    for path in paths:
        files = path.rglob("test_*.py") if path.is_dir() else [path]
        found |= {read_tier(file) for file in files}
    return [tier for tier in TIERS if tier in found]
