"""`python -m tests.lint`: ruff, mypy --strict and hadolint, from the locked environment `test`."""

import os
import shlex
import sys
from pathlib import Path

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
    python = venv.python_of("test", envs_dir)
    dockerfiles = sorted(str(path) for path in Path().glob("Dockerfile.*"))
    commands = [[str(python), "-m", *check] for check in _CHECKS]
    commands.append([str(python.with_name("hadolint")), *dockerfiles])
    failed = 0
    for command in commands:
        say(f"== {shlex.join(command).removeprefix(f'{python.parent}/')}")
        failed += process.run_in_foreground(command, environment=os.environ) != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
