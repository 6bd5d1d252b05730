"""These tests need a Docker engine: without one, each is skipped and counted."""

import subprocess
from functools import cache

import pytest


@cache
def _find_obstacle() -> str:
    """Return why there is no engine; "" when one answers."""
    try:
        told = subprocess.run(
            ["docker", "info"], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if told.returncode == 0 else told.stderr.strip() or "docker info failed"


@pytest.fixture(autouse=True, scope="session")
def docker_engine() -> None:
    """Skip where no engine answers."""
    if obstacle := _find_obstacle():
        pytest.skip(f"no Docker engine: {obstacle}")
