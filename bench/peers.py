"""DVC and Snakemake: installed once, and each with a project of the same graph as `graph.py` makes.

They lie beside the images' environments, in a directory named by the digest of peers.txt. Both get
what makes them fast: no analytics, no look for updates, caches on the disk that is measured.
"""

import re
from pathlib import Path

from bench import timing
from pipeline.artifact.key import REPOSITORY
from pipeline.engine import process
from pipeline.engine.environment import (
    Environment,
    find_interpreter,
    make_interpreter_document,
    make_once,
)
from pipeline.engine.image import make_files_document
from pipeline.engine.packages import make_host_environment, make_pip_argv
from pipeline.errors import HostError, StageError
from pipeline.log import say

LOCK = REPOSITORY / "bench" / "peers.txt"
_DVC_OPTIONS = (("core.analytics", "false"), ("core.check_update", "false"))
_SNAKEFILE = """\
rule all:
    input: expand("{{number}}.bin", number=range({count}))

rule root:
    output: "0.bin"
    shell: "truncate -s {size_bytes} {{output}}"

rule leaf:
    input: "0.bin"
    output: "{{number}}.bin"
    wildcard_constraints: number="[1-9][0-9]*"
    shell: "head -c 16 {{input}} > {{output}}"
"""


def install(directory: Path) -> Path:
    """Return where the peers' programs lie, installed below `directory` if they were not yet.

    Raises HostError when pip cannot.
    """
    document: dict[str, object] = {
        "lock": make_files_document(LOCK),
        "host": make_interpreter_document(),
    }
    return make_once(Environment(name="peers", document=document), directory, _make_venv) / "bin"


def _make_venv(path: Path, log: Path) -> None:
    say("installing DVC and Snakemake, once ...")
    venv: list[str | Path] = [find_interpreter().path, "-m", "venv", path]
    pip = [*make_pip_argv(path, "install"), "--require-hashes", "-r", LOCK]
    for argv in (venv, pip):
        if process.run(argv, log_path=log, environment=make_host_environment()) != 0:
            raise HostError(
                "the peers cannot be installed",
                on=str(path),
                why=process.read_last_lines(log),
                then=f"read {log}, then run this again",
            )


def read_version(name: str) -> str:
    """Return the version of a peer that the lock pins."""
    found = re.search(rf"(?m)^{name}==(\S+)", LOCK.read_text(encoding="utf-8"))
    assert found, f"peers.txt pins no {name}"
    return found[1]


def make_variables(scratch: Path) -> dict[str, str]:
    """Return the variables that the peers run with: nothing of theirs lies outside `scratch`."""
    return timing.make_variables() | {
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(scratch / "dvc-site"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "XDG_CONFIG_HOME": str(scratch / "config"),
    }


def make_dvc_project(project: Path, programs: Path, *, count: int, size_bytes: int) -> None:
    """Make a project whose graph is built; only a small root goes into DVC's cache."""
    project.mkdir()
    dvc = programs / "dvc"
    _run([dvc, "init", "--no-scm", "--quiet"], project)
    for name, value in _DVC_OPTIONS:
        _run([dvc, "config", name, value], project)
    (project / "dvc.yaml").write_text(_make_dvc_yaml(count, size_bytes), encoding="utf-8")
    _run([dvc, "repro", "--quiet"], project)


def _make_dvc_yaml(count: int, size_bytes: int) -> str:
    cached = "true" if size_bytes < 1 << 20 else "false"
    root = (
        "stages:\n"
        "  root:\n"
        f"    cmd: truncate -s {size_bytes} 0.bin\n"
        "    outs:\n"
        "    - 0.bin:\n"
        f"        cache: {cached}\n"
    )
    leaves = (
        f"  leaf-{number}:\n"
        f"    cmd: head -c 16 0.bin > {number}.bin\n"
        "    deps:\n"
        "    - 0.bin\n"
        "    outs:\n"
        f"    - {number}.bin\n"
        for number in range(1, count)
    )
    return root + "".join(leaves)


def make_snakemake_project(project: Path, programs: Path, *, count: int, size_bytes: int) -> None:
    """Make a project whose graph is built."""
    project.mkdir()
    text = _SNAKEFILE.format(count=count, size_bytes=size_bytes)
    (project / "Snakefile").write_text(text, encoding="utf-8")
    _run([programs / "snakemake", "--cores", "2", "--quiet", "all", "--", "all"], project)


def _run(argv: list[str | Path], project: Path) -> None:
    log = project.with_name(f"{project.name}.log")
    code = process.run(argv, log_path=log, environment=make_variables(project.parent), cwd=project)
    if code != 0:
        raise StageError(
            "a peer cannot build its graph",
            on=str(project),
            why=process.read_last_lines(log),
            then="mend that, or change the versions in bench/peers.txt; then run this again",
        )
