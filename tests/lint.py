"""`python -m tests.lint`: ruff and mypy --strict, from the locked environment `test`."""

import os
import sys

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import process, venv
from pipeline.engine.environment import read_envs_dir
from pipeline.errors import TristillError
from pipeline.log import say, start_log

_CHECKS = (("ruff", "check"), ("ruff", "format", "--check"), ("mypy",))


def main() -> int:
    """Run every check; return 0 when all are clean."""
    start_log()
    os.chdir(REPOSITORY)
    envs_dir = read_envs_dir()
    try:
        venv.prepare({"test"}, envs_dir=envs_dir)
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    failed = 0
    for check in _CHECKS:
        say(f"== {' '.join(check)}")
        argv = [venv.python_of("test", envs_dir), "-m", *check]
        failed += process.run_in_foreground(argv, environment=os.environ) != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
