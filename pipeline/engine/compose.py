"""`python -m pipeline.engine.compose`: write `.env`, from which Docker Compose fills compose.yaml.

It names the images of this checkout and the user that containers run as. Lines of other variables,
such as TRISTILL_MODEL, stay as they are. The directory that the stages' shells write is made, too:
Docker would make it root's.
"""

import os
import sys
from collections.abc import Mapping

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import container_image, docker_client
from pipeline.engine.container_image import NAMES
from pipeline.engine.docker_run import make_user_options
from pipeline.errors import TristillError
from pipeline.log import say, start_log

ENV_PATH = REPOSITORY / ".env"
_OUT = REPOSITORY / "build" / "out"


def make_variables(daemon: docker_client.Daemon) -> dict[str, str]:
    """Return the variables that compose.yaml and compose.gpu.yaml ask for."""
    options = make_user_options(daemon, [])
    variables = {"TRISTILL_USER": options[options.index("--user") + 1]}
    for name in NAMES:
        variable = f"TRISTILL_{name.upper().replace('-', '_')}_IMAGE"
        variables[variable] = container_image.make_tag(name)
    return variables


def merge(text: str, variables: Mapping[str, str]) -> str:
    """Return the text of an .env file with the variables in it and every other line as it was."""
    kept = [line for line in text.splitlines() if line.partition("=")[0].strip() not in variables]
    return "\n".join([*kept, *(f"{name}={value}" for name, value in variables.items())]) + "\n"


def main() -> int:
    """Write the file; return the exit code."""
    start_log()
    try:
        variables = make_variables(docker_client.read_daemon())
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    text = ENV_PATH.read_text(encoding="utf-8") if ENV_PATH.exists() else ""
    ENV_PATH.write_text(merge(text, variables), encoding="utf-8")
    _OUT.mkdir(parents=True, exist_ok=True)
    say(f"wrote {os.path.relpath(ENV_PATH)}; next: make images, docker compose up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
