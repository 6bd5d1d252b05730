"""Packages that tests need and no image holds: each set in an environment of its own, from a lock.

On no test's path: beside an image's packages they would change what is tested. `python -m tests`
makes them; a test asks where they lie.
"""

from pathlib import Path

from pipeline.engine import packages
from pipeline.engine.environment import Environment, make_once
from pipeline.engine.image import make_files_document
from pipeline.log import say


def prepare(name: str, envs_dir: Path) -> None:
    """Install `tests/<name>.lock` unless that is done."""
    environment, lock = _make_environment(name), _find_lock(name)

    def make(path: Path, log_path: Path) -> None:
        packages.make_venv(path, [lock], title=name, log_path=log_path)

    if not environment.is_complete(envs_dir):
        say(f"{name}: fetching ...")
        envs_dir.mkdir(parents=True, exist_ok=True)
        make_once(environment, envs_dir, make)


def find_packages(name: str, envs_dir: Path) -> Path:
    """Return where the packages lie that `prepare` has installed."""
    return packages.find_site_packages(_make_environment(name).find(envs_dir))


def _find_lock(name: str) -> Path:
    return Path(__file__).with_name(f"{name}.lock")


def _make_environment(name: str) -> Environment:
    sources = (_find_lock(name), Path(__file__), Path(packages.__file__))
    return Environment(name=name, document={"source": make_files_document(*sources)})
