"""All tests: `python -m tests [pytest arguments]`.

Each tier runs with the interpreter of its image and nothing of the caller's variables; pytest
lies in the environment `test`, behind the image's own packages. Ends with one line, the sum.
"""

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import process, venv
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.stage import make_stage_variables
from pipeline.errors import INTERRUPTED, TristillError
from pipeline.log import say, start_log
from tests import locked
from tests.tiers import DOCKER, HOST, find_tiers

_NO_TESTS_COLLECTED = 5
_ON_HOST = {HOST, DOCKER}
# What a tier's tests read besides: Mistral's vocabulary, a cluster.
_LOCKED = {"convert": ("tekken",), "train": ("ray",)}
_START = "import sys; sys.path.append(sys.argv.pop(1)); import pytest; sys.exit(pytest.main())"


def main(argv: Sequence[str]) -> int:
    """Run the tests; return 0 when all passed."""
    start_log()
    os.chdir(REPOSITORY)
    envs_dir = read_envs_dir()
    tiers = find_tiers(_find_paths(argv) or [REPOSITORY / "tests"])
    try:
        # The end-to-end test, in an image's tier, builds with all of them.
        images = {"test"} if set(tiers) <= _ON_HOST else {"test", "convert", "serve", "train"}
        venv.prepare(images, envs_dir=envs_dir)
        for name in (name for tier in tiers for name in _LOCKED.get(tier, ())):
            locked.prepare(name, envs_dir)
        counts = sum((_run_tier(tier, argv, envs_dir) for tier in tiers), Counter[str]())
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    failed = counts["failed"] + counts["error"]
    skipped = ""
    if counts["skipped"]:
        skipped = f", {counts['skipped']} skipped"
        say(f"!! {counts['skipped']} tests were SKIPPED: pytest says above why")
    sys.stdout.write(f"{counts['passed']} passed, {failed} failed{skipped}\n")
    return 1 if failed or not counts["passed"] else 0


def _find_paths(argv: Sequence[str]) -> list[Path]:
    """Return the arguments that name test files or folders, without their ::test."""
    paths = [Path(word.partition("::")[0]) for word in argv if not word.startswith("-")]
    return [path for path in paths if path.exists()]


def _run_tier(tier: str, argv: Sequence[str], envs_dir: Path) -> Counter[str]:
    """Return the number of tests by outcome."""
    say(f"== {tier}")
    python = venv.python_of("test" if tier in _ON_HOST else tier, envs_dir)
    start = (python, "-c", _START, venv.site_packages_of("test", envs_dir))
    with tempfile.TemporaryDirectory(prefix="tristill-tests-") as work:
        counts_path = Path(work) / "counts.json"
        code = process.run_in_foreground(
            [*start, f"--tier={tier}", f"--counts={counts_path}", *argv],
            environment=_make_variables(tier, Path(work), envs_dir),
        )
        written = counts_path.is_file()
        counts = Counter[str](json.loads(counts_path.read_text()) if written else {})
    if code not in (0, _NO_TESTS_COLLECTED) and not counts["failed"] + counts["error"]:
        say(f"pytest itself ended with {code}")
        counts["error"] += 1
    return counts


def _make_variables(tier: str, work: Path, envs_dir: Path) -> dict[str, str]:
    envs = {"TRISTILL_ENVS": str(envs_dir)}
    if tier in _ON_HOST:
        return os.environ | envs | {"PYTHONPATH": str(REPOSITORY)}
    terminal = {name: os.environ[name] for name in ("COLUMNS", "TERM") if name in os.environ}
    return make_stage_variables(tier, work) | envs | terminal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
