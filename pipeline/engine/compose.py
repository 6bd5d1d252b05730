"""`python -m pipeline.engine.compose`: write `.env`, from which Docker Compose fills compose.yaml.

It names the images of this checkout and the user that containers run as. Lines of other variables,
such as TRISTILL_MODEL, stay as they are. The directories that containers write are made, too, with
what the balancer and Prometheus read there: Docker would make them root's.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import container_image, docker_client
from pipeline.engine.container_image import NAMES
from pipeline.engine.docker_run import make_user_options
from pipeline.errors import TristillError, UsageError
from pipeline.log import say, start_log
from pipeline.serve.access import LOOPBACK, make_access
from pipeline.serve.balancer import CANARY, STABLE, Balancer, make_configuration

ENV_PATH = REPOSITORY / ".env"
_BUILD = REPOSITORY / "build"
SOCKET_PATH = _BUILD / "balancer" / "socket"
_SERVED = "8080"
_ADDRESS, _KEY = "TRISTILL_ADDRESS", "TRISTILL_API_KEY"


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


def write_directories(build: Path, key: str) -> None:
    """Make what containers write below `build`, and write what those of the profiles read there.

    A PEM file of a certificate and its key, `balancer/certificate.pem`, makes the balancer speak
    TLS. Prometheus asks with `key`.
    """
    for name in ("out", "balancer", "monitoring/prometheus", "monitoring/grafana"):
        (build / name).mkdir(parents=True, exist_ok=True)
    certificate = build / "balancer" / "certificate.pem"
    balancer = Balancer(
        listen=f":{_SERVED}",
        figures=":8405",
        socket=f"/balancer/{SOCKET_PATH.name}",
        servers={STABLE: f"serve:{_SERVED}", CANARY: f"canary:{_SERVED}"},
        certificate=f"/balancer/{certificate.name}" if certificate.exists() else "",
        by_name=True,
    )
    text = make_configuration(balancer)
    (build / "balancer" / "haproxy.cfg").write_text(text, encoding="utf-8")
    secrets = build / "monitoring" / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    (secrets / "api-key").touch(mode=0o600)
    # Prometheus takes no empty one; a server without keys does not look at it.
    (secrets / "api-key").write_text(key.partition(",")[0] or "none", encoding="utf-8")


def read_choices(text: str) -> dict[str, str]:
    """Return the caller's variables, as .env and then the environment have them."""
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    written = {name.strip(): value.strip().strip("'\"") for name, sign, value in lines if sign}
    return {name: os.environ.get(name) or written.get(name, "") for name in (_ADDRESS, _KEY)}


def require_key(choices: Mapping[str, str]) -> None:
    """Raise UsageError when other machines would reach a server that asks nobody for a key."""
    if choices[_KEY]:
        return
    try:
        make_access(choices[_ADDRESS] or LOOPBACK, int(_SERVED), None)
    except UsageError as error:
        raise UsageError(
            error.what,
            on=f"{_ADDRESS}={choices[_ADDRESS]}",
            why=error.why,
            then=f'echo "{_KEY}=$(openssl rand -hex 32)" >> .env; then run this again',
        ) from None


def main() -> int:
    """Write the files; return the exit code."""
    start_log()
    text = ENV_PATH.read_text(encoding="utf-8") if ENV_PATH.exists() else ""
    choices = read_choices(text)
    try:
        require_key(choices)
        variables = make_variables(docker_client.read_daemon())
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    ENV_PATH.write_text(merge(text, variables), encoding="utf-8")
    write_directories(_BUILD, choices[_KEY])
    say(f"wrote {os.path.relpath(ENV_PATH)}; next: make images, docker compose up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
