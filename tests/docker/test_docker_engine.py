"""Real containers of a small image: what a stage sees, may do and leaves, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.engine import Engine
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.rebuild import rebuild
from pipeline.artifact.store import Store, open_store
from pipeline.artifact.variation import make_variation
from pipeline.engine import container_image, docker_client, docker_engine
from pipeline.engine.docker_engine import DockerEngine
from pipeline.errors import HostError
from tests.artifact.small_build import HereEngine, build_small, make_small_steps
from tests.docker import small_image

pytestmark = pytest.mark.docker

_STRANGER = 4321
_MANY_ROWS = 3_000_000

# What stands in the place of pipeline.job: the engine mounts it as if it were the pipeline.
_PROBE = """
import json, os, pathlib, sys
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
def tell(found):
    pathlib.Path(job["out"], "found").write_text(json.dumps(found))
def is_writable(folder):
    try:
        (pathlib.Path(folder) / "probe").touch()
    except OSError:
        return False
    (pathlib.Path(folder) / "probe").unlink()
    return True
"""


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the small image in the place of the real ones; no container is left afterwards."""
    small_image.make_small_image()
    monkeypatch.setattr(container_image, "make_tag", small_image.make_small_tag)
    monkeypatch.setattr(container_image, "make_labels", small_image.make_no_labels)
    yield
    left = _list_containers(tmp_path)
    for name in left:
        docker_client.remove_container(name)
    assert left == []


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs some lines in the place of a stage; their exit code and what they found."""
    pipeline = tmp_path / "repository" / "pipeline"
    pipeline.mkdir(parents=True)
    monkeypatch.setattr(docker_engine, "REPOSITORY", pipeline.parent)
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    if os.getuid() == 0:
        # Root is refused less: a user like any other shows more.
        os.chown(work / "out", _STRANGER, _STRANGER)
        monkeypatch.setattr(os, "getuid", lambda: _STRANGER)
        monkeypatch.setattr(os, "getgid", lambda: _STRANGER)

    def run(lines: str, **settings: Any) -> tuple[int, Any]:
        (pipeline / "job.py").write_text(_PROBE + lines)
        job = {"stage": "x", "inputs": {}, "options": {}, "out": str(work / "out")}
        inputs = settings.pop("inputs", {})
        job["inputs"] = {label: str(path) for label, path in inputs.items()}
        variation = settings.pop("variation", None)
        engine = DockerEngine(**settings)
        code = engine.run("train", job, work=work, log=work / "log", variation=variation)
        found = work / "out" / "found"
        return code, json.loads(found.read_text()) if found.exists() else None

    return run


def _list_containers(root: Path) -> list[str]:
    """Return the names of the containers that work below the directory."""
    found = docker_client.list_containers(socket.gethostname())
    return [each.name for each in found if each.work.is_relative_to(root)]


def _read_contents(store: Store) -> dict[str, list[tuple[str, str]]]:
    """Return each artifact's directory with the digests of its files."""
    artifacts, _ = store.read_all()
    return {
        each.path.name: sorted((file.path, file.sha256) for file in each.manifest.files)
        for each in artifacts
    }


def test_the_same_keys_and_bytes_as_without_a_container(store: Store, tmp_path: Path) -> None:
    beside = open_store(tmp_path / "beside")
    build_small(beside)
    sealed = build_small(store, engine=DockerEngine())
    assert len(sealed) == 2
    assert _read_contents(store) == _read_contents(beside)
    assert {each.manifest.engine for each in sealed.values()} == {"docker"}
    assert list(store.workspaces.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "second"), [(DockerEngine(), HereEngine()), (HereEngine(), DockerEngine())]
)
def test_a_rebuild_by_the_other_engine_gives_the_same_bytes(
    store: Store, first: Engine, second: Engine
) -> None:
    sealed = build_small(store, engine=first)
    for step in make_small_steps(store):
        assert rebuild(step, sealed, store, second) is None


def test_a_rebuild_sees_another_time_zone_umask_and_year(
    probe: Callable[..., Any], tmp_path: Path
) -> None:
    lines = (
        "import time\n"
        "tell([time.time(), time.strftime('%z'), hash('text'), os.umask(0), os.environ['LC_ALL']])"
    )
    before, zone, seed, umask, locale = probe(lines)[1]
    assert (zone, umask, locale) == ("+0000", 0o022, "C.UTF-8")
    (tmp_path / "work" / "out" / "found").unlink()
    varied = probe(lines, variation=make_variation(tmp_path))[1]
    assert before - varied[0] > 300 * 24 * 3600
    assert (varied[1], varied[3], varied[4]) == ("+1330", 0o077, "C")
    assert varied[2] != seed


def test_containers_side_by_side(store: Store, tmp_path: Path) -> None:
    beside = open_store(tmp_path / "beside")
    build_small(beside)
    build_small(store, jobs=2, engine=DockerEngine())
    assert _read_contents(store) == _read_contents(beside)


def test_there_is_no_network(probe: Callable[..., Any]) -> None:
    lines = "tell([os.listdir('/sys/class/net'), open('/proc/net/route').read().splitlines()[1:]])"
    assert probe(lines) == (0, [["lo"], []])


def test_nothing_that_lasts_is_writable_but_the_output(probe: Callable[..., Any]) -> None:
    code, found = probe(
        "tell([top for top, folders, _ in os.walk('/')"
        " if not top.startswith(('/proc', '/sys')) and is_writable(top)])"
    )
    assert code == 0
    in_memory = {"/tmp", "/dev/shm", "/dev/mqueue"}
    assert set(found) == {"/out"} | in_memory


def test_files_belong_to_the_caller_and_have_usual_modes(
    probe: Callable[..., Any], tmp_path: Path
) -> None:
    probe("tell('')")
    status = (tmp_path / "work" / "out" / "found").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert status.st_mode & 0o777 == 0o644


def test_a_stage_has_no_privilege(probe: Callable[..., Any]) -> None:
    _, status = probe("tell(dict(l.split(':', 1) for l in open('/proc/self/status')))")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert int(status["NoNewPrivs"]) == 1


def test_variables_come_from_the_image_alone(
    probe: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    proxies = {"default": {"httpProxy": "http://user:secret@proxy", "noProxy": "here"}}
    (configuration / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(configuration))
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy")
    monkeypatch.setenv("SECRET", "of the caller")
    _, found = probe("tell(dict(os.environ))")
    assert len(found.pop("HOSTNAME")) == 12
    assert found == small_image.VARIABLES


def test_a_download_caches_links_are_followed(probe: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_text("weights")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "model").symlink_to("../blobs/1")
    (tmp_path / "snapshot" / "config, too").write_text("config")
    lines = "tell({path.name: path.read_text() for path in pathlib.Path('/in/source').iterdir()})"
    _, found = probe(lines, inputs={"source": tmp_path / "snapshot"})
    assert found == {"model": "weights", "config, too": "config"}


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("sys.exit(5)", 5),
        ("raise ValueError", 1),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 11)", -11),
    ],
)
def test_how_a_stage_ends(probe: Callable[..., Any], end: str, code: int) -> None:
    assert probe(end)[0] == code


def test_memory_ends_at_the_limit_and_that_is_said(
    probe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(docker_engine, "say", said.append)
    assert probe("bytes(1 << 20)", memory_gb=0.1)[0] == 0
    assert said == []
    assert probe("hold = bytearray(os.urandom(1 << 20) * 400)", memory_gb=0.1)[0] == -9
    assert "memory_gb" in " ".join(said)


def test_processes_end_at_the_limit(probe: Callable[..., Any]) -> None:
    lines = (
        "import threading, time\n"
        "try:\n"
        "    for n in range(100): threading.Thread(target=time.sleep, args=(1,)).start()\n"
        "except RuntimeError: tell('refused')\n"
    )
    assert probe(lines, pids=20) == (0, "refused")


def test_what_docker_cannot_do_is_told_in_its_words(probe: Callable[..., Any]) -> None:
    with pytest.raises(HostError, match="could not be run") as caught:
        probe("", memory_gb=0.000001)
    assert "memory limit" in caught.value.why


def test_an_image_without_the_program_is_told(
    probe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_image, "make_tag", lambda name: small_image.BASE)
    with pytest.raises(HostError, match="could not be run") as caught:
        probe("")
    assert "/opt/tristill/bin/python" in caught.value.why


def test_a_missing_image_is_not_looked_for_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_absent(name: str) -> str:
        return "tristill-absent:cpu-0"

    monkeypatch.setattr(container_image, "make_tag", make_absent)
    with pytest.raises(HostError, match="an image is not here"):
        DockerEngine().prepare(["train"])


def _start(*words: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.docker.small_image", *words],
        cwd=REPOSITORY,
        env=os.environ | variables | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        start_new_session=True,
        text=True,
    )


def _start_builder(store: Store) -> "subprocess.Popen[str]":
    """Start a build of many rows in a process of its own, and wait until its stage runs."""
    builder = _start("build", str(store.root), str(_MANY_ROWS))
    _wait_until(
        lambda: any("pipeline.job" in _docker("top", name) for name in _list_containers(store.root))
    )
    return builder


def _find_client(builder: int) -> int:
    """Return the process id of the builder's `docker run`."""
    (child,) = Path(f"/proc/{builder}/task/{builder}/children").read_text().split()
    return int(child)


def _docker(*words: str) -> str:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False).stdout


def _wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_a_builder_that_ends_takes_its_container_along(
    store: Store, number: signal.Signals, code: int
) -> None:
    with _start_builder(store) as builder:
        builder.send_signal(number)
    assert builder.returncode == code
    if number == signal.SIGKILL:
        _wait_until(lambda: not _list_containers(store.root))
    assert _list_containers(store.root) == []
    assert store.read_all()[0] == []


def test_a_client_that_is_killed_leaves_no_container(store: Store) -> None:
    with _start_builder(store) as builder:
        os.kill(_find_client(builder.pid), signal.SIGKILL)
    assert builder.returncode == 5
    assert _list_containers(store.root) == []


def test_what_a_killed_builder_and_client_leave_is_removed_by_the_next(
    store: Store, tmp_path: Path
) -> None:
    """And what another builder is at is not."""
    others = open_store(tmp_path / "others")
    with _start_builder(store) as builder, _start_builder(others) as other:
        client = _find_client(builder.pid)
        builder.send_signal(signal.SIGSTOP)
        os.kill(client, signal.SIGKILL)
        builder.kill()
        builder.wait()
        assert len(_list_containers(store.root)) == 1
        DockerEngine().prepare(["train"])
        assert _list_containers(store.root) == []
        assert len(_list_containers(others.root)) == 1
        other.send_signal(signal.SIGINT)


def test_a_program_on_the_callers_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "row").write_text("the row")
    script = "import pathlib, sys; print(pathlib.Path(sys.argv[1], 'row').read_text()); sys.exit(3)"
    argv = ["bin/python", "-c", script, str(tmp_path)]
    assert DockerEngine().interact("train", argv, inputs=[tmp_path]) == 3
    assert capfd.readouterr().out == "the row\n"


def test_a_server_is_reached_and_ends_with_its_caller(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with _start("serve", str(port), TMPDIR=str(tmp_path)) as server:
        _wait_until(lambda: _fetch(port))
        assert len(_list_containers(tmp_path)) == 1
        server.send_signal(signal.SIGINT)
    assert server.returncode == 130
    assert _list_containers(tmp_path) == []


def _fetch(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return str(answer.read())
    except OSError:
        return ""
