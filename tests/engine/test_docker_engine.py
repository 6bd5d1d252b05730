"""What Docker is asked to do, word by word, and what its answers mean; no daemon is needed."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.engine import Variation
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.workspace import make_workspace
from pipeline.engine import docker_client, docker_engine
from pipeline.engine.docker_engine import DockerEngine
from pipeline.errors import HostError
from pipeline.serve.argv import ServerSettings, make_server_argv
from tests.engine.fake_docker import FakeDocker, install_fake_docker

_OPTIONS = {"seed": 1}


@pytest.fixture(autouse=True)
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDocker]:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 5678)
    fake = install_fake_docker(tmp_path / "fake docker", monkeypatch)
    fake.hold("train", "convert", "serve")
    yield fake
    docker_client.read_daemon.cache_clear()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "store" / ".tmp" / "work"
    (path / "out").mkdir(parents=True)
    return path


def _make_job(work: Path, **inputs: Path) -> dict[str, Any]:
    return {
        "stage": "data.dataset",
        "inputs": {label: str(path) for label, path in inputs.items()},
        "options": _OPTIONS,
        "out": str(work / "out"),
    }


def _make_input(directory: Path, name: str) -> Path:
    path = directory / name
    path.mkdir(parents=True)
    (path / "file").write_text("content")
    return path


def _run(work: Path, job: dict[str, Any], **settings: Any) -> int:
    variation = settings.pop("variation", None)
    engine = DockerEngine(**settings)
    return engine.run("train", job, work=work, log=work / "log", variation=variation)


def _read_run(docker: FakeDocker) -> list[str]:
    """Return the one `docker run`, its random name replaced."""
    (words,) = docker.read_calls("run")
    name = words.index("--name") + 1
    assert words[name].startswith("tristill-")
    return [*words[:name], "NAME", *words[name + 1 :]]


def _list_mounts(words: list[str]) -> list[str]:
    return [after for word, after in zip(words, words[1:], strict=False) if word == "--mount"]


def test_a_stage_may_read_its_inputs_and_write_its_output(
    docker: FakeDocker, work: Path, tmp_path: Path
) -> None:
    text = _make_input(tmp_path / "store", "k-text")
    rows = _make_input(tmp_path / "store", "k-rows")
    assert _run(work, _make_job(work, text=text, rows=rows)) == 0
    bind = "type=bind,source="
    assert _read_run(docker) == [
        *("run", "--rm", "--init", "--pull", "never", "--no-healthcheck", "--name", "NAME"),
        *("--label", f"io.tristill.work={work}"),
        *("--label", f"io.tristill.host={socket.gethostname()}"),
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777", "--workdir", "/tmp"),
        *("--user", "1234:5678", "--pids-limit", "4096", "--network", "none"),
        *("--mount", f"{bind}{REPOSITORY / 'pipeline'},target=/tristill/pipeline,readonly"),
        *("--mount", f"{bind}{text},target=/in/text,readonly"),
        *("--mount", f"{bind}{rows},target=/in/rows,readonly"),
        *("--mount", f"{bind}{work / 'out'},target=/out"),
        *("--mount", f"{bind}{work / 'job.json'},target=/job.json,readonly"),
        *("--entrypoint", "/opt/tristill/bin/python", "tristill-train:cpu-1"),
        *("-m", "pipeline.job", "/job.json"),
    ]
    assert json.loads((work / "job.json").read_text()) == {
        "stage": "data.dataset",
        "inputs": {"text": "/in/text", "rows": "/in/rows"},
        "options": _OPTIONS,
        "out": "/out",
    }


def test_a_stage_that_resumes_may_write_its_work_area_too(docker: FakeDocker, work: Path) -> None:
    area = work.parents[1] / ".work" / "k-dataset"
    area.mkdir(parents=True)
    _run(work, {**_make_job(work), "work": str(area)})
    assert f"type=bind,source={area},target=/work" in _list_mounts(_read_run(docker))
    assert json.loads((work / "job.json").read_text())["work"] == "/work"


def test_limits_and_gpus_only_where_they_are_wanted(
    docker: FakeDocker, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    docker.hold("train-cuda")
    _run(work, _make_job(work), memory_gb=1.5, pids=99)
    words = _read_run(docker)
    start = words.index("--pids-limit")
    assert words[start : start + 6] == [
        *("--pids-limit", "99", "--memory", "1500000000", "--memory-swap", "1500000000"),
    ]
    assert "--gpus" not in words
    for stage, sees in (("data.dataset", False), ("sft.training", True)):
        job = {**_make_job(work), "stage": stage}
        DockerEngine().run("train-cuda", job, work=work, log=work / "log")
        words = docker.read_calls("run")[-1]
        assert ("--gpus" in words) == ("CUDA_VISIBLE_DEVICES" in words) == sees
        # Docker's own 64 MB would end a training of several processes in NCCL.
        assert words.count("--shm-size") == words.count("1g") == sees


def test_a_stage_that_fetches_is_told_secrets_by_their_names_alone(
    docker: FakeDocker, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy")
    for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    _run(work, _make_job(work))
    assert "HF_TOKEN" not in _read_run(docker)
    _run(work, {**_make_job(work), "network": True})
    words = docker.read_calls("run")[-1]
    assert "--network" not in words
    assert {"HF_TOKEN", "HF_HUB_OFFLINE", "SSL_CERT_FILE", "https_proxy"} < set(words)
    assert not any("secret" in word for word in words)
    assert "secret" not in (work / "job.json").read_text()
    assert "secret" not in (work / "log").read_text()
    target = "/etc/ssl/certs/ca-certificates.crt"
    assert f"type=bind,source={bundle},target={target},readonly" in words
    told = docker.read_variables()
    assert (told["HF_TOKEN"], told["SSL_CERT_FILE"]) == ("hf_secret", target)


def test_a_file_of_the_users_is_mounted_by_itself_under_its_name(
    docker: FakeDocker, work: Path, tmp_path: Path
) -> None:
    """Never the folder around it, which may be a home directory."""
    home = _make_input(tmp_path, "home")
    _run(work, _make_job(work, **{"source-1": home / "file"}))
    assert _list_mounts(_read_run(docker))[1] == (
        f"type=bind,source={home / 'file'},target=/in/source-1/file,readonly"
    )
    assert json.loads((work / "job.json").read_text())["inputs"] == {
        "source-1": "/in/source-1/file"
    }


def test_a_rebuild_changes_what_its_variation_says(
    docker: FakeDocker, work: Path, tmp_path: Path
) -> None:
    """Inputs come as links and the output lies elsewhere, as a rebuild does it."""
    text = _make_input(tmp_path / "store", "k-text")
    library = tmp_path / "clock.so"
    library.touch()
    elsewhere = work / "built again, elsewhere"
    (elsewhere / "out").mkdir(parents=True)
    link = elsewhere / "text"
    link.symlink_to(text)
    variation = Variation(
        variables={"TZ": "XYZ-13:30", "LC_ALL": "C", "LD_PRELOAD": str(library)}, umask=0o077
    )
    _run(elsewhere, _make_job(elsewhere, text=link), variation=variation)
    words = _read_run(docker)
    environment = words[words.index("none") + 1 : words.index("--mount")]
    assert environment == [
        *("--env", "LC_ALL=C", "--env", "LD_PRELOAD=/preloaded.so", "--env", "TZ=XYZ-13:30")
    ]
    assert _list_mounts(words)[1:] == [
        f"type=bind,source={text},target=/in/text,readonly",
        f'type=bind,"source={elsewhere / "out"}",target=/out',
        f'type=bind,"source={elsewhere / "job.json"}",target=/job.json,readonly',
        f"type=bind,source={library},target=/preloaded.so,readonly",
    ]
    python, start, *rest = words[words.index("tristill-train:cpu-1") + 1 :]
    assert (python, rest) == ("-c", ["077", "/job.json"])
    compile(start, "start", "exec")


def test_a_directory_of_links_is_mounted_file_by_file(
    docker: FakeDocker, work: Path, tmp_path: Path
) -> None:
    """A download cache keeps contents beside the directories that name them."""
    blobs = _make_input(tmp_path, "blobs")
    (blobs / "folder").mkdir()
    snapshot = tmp_path / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "weights").symlink_to("../../blobs/file")
    (snapshot / "folder").symlink_to(blobs / "folder")
    (snapshot / "gone").symlink_to("../../blobs/gone")
    _run(work, _make_job(work, source=snapshot))
    assert _list_mounts(_read_run(docker))[1:-2] == [
        f"type=bind,source={snapshot / 'config.json'},target=/in/source/config.json,readonly",
        f"type=bind,source={blobs / 'folder'},target=/in/source/folder,readonly",
        f"type=bind,source={blobs / 'file'},target=/in/source/weights,readonly",
    ]


def test_links_inside_a_directory_stay_one_mount(
    docker: FakeDocker, work: Path, tmp_path: Path
) -> None:
    source = _make_input(tmp_path, "source")
    (source / "alias").symlink_to("file")
    _run(work, _make_job(work, source=source))
    assert f"type=bind,source={source},target=/in/source,readonly" in _read_run(docker)


def test_a_rootless_daemons_root_is_the_caller(docker: FakeDocker, work: Path) -> None:
    docker.describe(SecurityOptions=["name=seccomp,profile=builtin", "name=rootless"])
    _run(work, _make_job(work))
    words = _read_run(docker)
    assert words[words.index("--user") + 1] == "0:0"


def test_mounts_are_not_relabelled_for_selinux(docker: FakeDocker, work: Path) -> None:
    docker.describe(SecurityOptions=["name=selinux"])
    _run(work, _make_job(work))
    assert "label=disable" in _read_run(docker)


def test_an_inputs_group_that_the_caller_is_in_reads_it(
    docker: FakeDocker, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _make_input(tmp_path, "text")
    group = text.stat().st_gid
    monkeypatch.setattr(os, "getgroups", lambda: [group, 424242])
    _run(work, _make_job(work, text=text))
    words = _read_run(docker)
    user = words.index("--user")
    assert words[user : user + 4] == ["--user", "1234:5678", "--group-add", str(group)]
    assert "424242" not in words


def test_the_clients_own_proxies_stay_out(
    docker: FakeDocker, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _run(work, _make_job(work))
    assert "--env" not in _read_run(docker)
    config = {"proxies": {"default": {"httpProxy": "http://proxy:3128"}}}
    (docker.folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    _run(work, _make_job(work))
    words = docker.read_calls("run")[-1]
    assert words[words.index("HTTP_PROXY") - 1] == "--env"
    assert not any("proxy:3128" in word for word in words)
    assert "HTTP_PROXY" not in docker_client.make_client_environment()


@pytest.mark.parametrize(
    ("told", "code"), [(0, 0), (1, 1), (5, 5), (137, -9), (139, -11), (143, -15)]
)
def test_a_stages_end_is_told_as_without_a_container(
    docker: FakeDocker, work: Path, told: int, code: int
) -> None:
    docker.answer("run", err="talk\n", code=told)
    assert _run(work, _make_job(work)) == code
    assert (work / "log").read_text().endswith("\ntalk\n")


def test_memory_that_ran_out_is_named(
    docker: FakeDocker, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(docker_engine, "say", said.append)
    docker.answer("run", code=137)
    docker.answer("events", out="2026-01-01T00:00:00 container oom 0123\n")
    assert _run(work, _make_job(work), memory_gb=2.0) == -9
    assert "memory_gb" in " ".join(said)
    (events,) = docker.read_calls("events")
    name = docker.read_calls("run")[0][docker.read_calls("run")[0].index("--name") + 1]
    assert f"container={name}" in events


@pytest.mark.parametrize("code", [125, 126, 127])
def test_what_docker_itself_cannot_do_is_told_in_its_words(
    docker: FakeDocker, work: Path, code: int
) -> None:
    docker.answer("run", err="docker: Error response from daemon: no room.\n", code=code)
    with pytest.raises(HostError, match="could not be run") as caught:
        _run(work, _make_job(work))
    assert "Error response from daemon: no room." in caught.value.why
    assert caught.value.on == "tristill-train:cpu-1"
    (name,) = (words[-1] for words in docker.read_calls("rm"))
    assert name in docker.read_calls("run")[0], "what it left is removed"


def test_a_missing_image_is_named_with_how_to_get_it(docker: FakeDocker) -> None:
    docker.hold("train")
    DockerEngine().prepare(["train"])
    with pytest.raises(HostError, match="image") as caught:
        DockerEngine().prepare(["train", "serve", "convert"])
    assert caught.value.on == "tristill-convert:cpu-1, tristill-serve:cpu-1"
    assert "make images" in caught.value.then
    assert "make pull REGISTRY=" in caught.value.then


def test_images_are_never_pulled_and_need_no_room(docker: FakeDocker) -> None:
    docker.hold()
    assert DockerEngine().count_missing_bytes(["train"]) == (Path("/var/lib/docker"), 0)
    assert docker.read_calls("pull") == []


@pytest.mark.parametrize(
    "told",
    [
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.",
        "permission denied while trying to connect to the Docker daemon socket",
    ],
)
def test_a_daemon_that_does_not_answer_is_quoted(docker: FakeDocker, told: str) -> None:
    docker.go_down(told)
    for ask in (DockerEngine().prepare, DockerEngine().count_missing_bytes):
        with pytest.raises(HostError, match="Docker does not answer") as caught:
            ask(["train"])
        assert caught.value.why == told
        assert "--engine venv" in caught.value.then


def test_a_client_that_answers_for_itself_alone_is_no_daemon(docker: FakeDocker) -> None:
    docker.describe(DockerRootDir="", ServerErrors=["Is the docker daemon running?"])
    with pytest.raises(HostError, match="Docker does not answer") as caught:
        DockerEngine().count_missing_bytes(["train"])
    assert caught.value.why == "Is the docker daemon running?"


def test_without_the_program_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="no Docker"):
        DockerEngine().prepare(["train"])


def test_containers_of_dead_makers_are_removed_and_no_others(
    docker: FakeDocker, tmp_path: Path
) -> None:
    root = tmp_path / "store" / ".tmp"
    with make_workspace(root, "alive") as alive, make_workspace(root, "rebuilds") as rebuilds:
        (rebuilds / "elsewhere").mkdir()
        dead = root / f"dead.{socket.gethostname()}.x"
        dead.mkdir()
        lines = {
            "tristill-gone": root / "gone",
            "tristill-dead": dead,
            "tristill-alive": alive,
            "tristill-rebuild": rebuilds / "elsewhere",
        }
        docker.answer("ps", out="".join(f"{name}\t{work}\n" for name, work in lines.items()))
        DockerEngine().prepare(["train"])
    removed = [words[-1] for words in docker.read_calls("rm")]
    assert removed == ["tristill-gone", "tristill-dead"]
    (listed,) = docker.read_calls("ps")
    assert f"label=io.tristill.host={socket.gethostname()}" in listed


def test_a_program_sees_its_inputs_under_other_names(
    docker: FakeDocker, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    docker.answer("run", out="the row\n", code=3)
    dataset, text = _make_input(tmp_path, "k-dataset"), _make_input(tmp_path, "k-text")
    argv = ["bin/python", "-m", "pipeline.data.masks", str(dataset), str(text), "7"]
    assert DockerEngine().interact("train", argv, inputs=[dataset, text]) == 3
    assert capfd.readouterr().out == "the row\n"
    words = _read_run(docker)
    assert words[words.index("--entrypoint") :] == [
        *("--entrypoint", "/opt/tristill/bin/python", "tristill-train:cpu-1"),
        *("-m", "pipeline.data.masks", "/in/0/k-dataset", "/in/1/k-text", "7"),
    ]
    assert _list_mounts(words)[1:] == [
        f"type=bind,source={dataset},target=/in/0/k-dataset,readonly",
        f"type=bind,source={text},target=/in/1/k-text,readonly",
    ]
    assert words[words.index("--network") + 1] == "none"
    assert "--tty" not in words, "there is no terminal here"


def _interact_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    outer, inner = os.openpty()
    with (
        os.fdopen(outer, "rb"),
        os.fdopen(inner, "r+b", buffering=0) as stream,
        monkeypatch.context() as patched,
    ):
        patched.setattr(sys, "stdin", stream)
        patched.setattr(sys, "stdout", stream)
        DockerEngine().interact("train", ["bin/python"])


def test_the_callers_terminal_is_handed_on(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _interact_on_a_terminal(monkeypatch)
    words = _read_run(docker)
    assert "--interactive" in words
    assert "--tty" in words


def test_a_background_job_does_not_touch_the_terminal(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be stopped."""
    monkeypatch.setattr(os, "tcgetpgrp", lambda terminal: os.getpgrp() + 1)
    _interact_on_a_terminal(monkeypatch)
    assert not {"--interactive", "--tty"} & set(_read_run(docker))


def test_a_server_is_reached_from_this_host_alone(docker: FakeDocker, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.touch()
    engine = DockerEngine()
    settings = ServerSettings(
        host=engine.listens_on, port=8123, context=64, parallel=1, threads=0, web_page=False
    )
    argv = make_server_argv("llama/bin/llama-server", str(gguf), settings)
    engine.interact("serve", argv, inputs=[gguf], port=8123)
    words = _read_run(docker)
    assert words[words.index("--publish") + 1] == "127.0.0.1:8123:8123"
    assert "--network" not in words
    program = words[words.index("--entrypoint") + 1 :]
    assert program[:8] == [
        *("/opt/tristill/llama/bin/llama-server", "tristill-serve:cpu-1"),
        *("--model", "/in/0/model.gguf", "--host", "0.0.0.0", "--port", "8123"),
    ]


@pytest.mark.parametrize(
    ("address", "published"),
    [
        ("0.0.0.0", "0.0.0.0:8123:8123"),
        ("::1", "[::1]:8123:8123"),
        ("10.0.0.1", "10.0.0.1:8123:8123"),
    ],
)
def test_a_server_is_reached_where_it_is_told_to_be(
    docker: FakeDocker, address: str, published: str
) -> None:
    argv = ["llama/bin/llama-server"]
    DockerEngine().interact("serve", argv, port=8123, address=address, before_end=lambda: None)
    words = _read_run(docker)
    assert words[words.index("--publish") + 1] == published
    assert not {"--interactive", "--tty"} & set(words), "it reads nothing"


def test_a_server_sees_its_adapters_where_they_are(docker: FakeDocker, tmp_path: Path) -> None:
    """Each is the beginning of a word, before its scale."""
    files = [tmp_path / "model.gguf", tmp_path / "a b.gguf"]
    for path in files:
        path.touch()
    settings = ServerSettings(
        host="0.0.0.0",
        port=8123,
        context=64,
        parallel=1,
        threads=0,
        web_page=True,
        page=DockerEngine().chat_page,
        adapters=(str(files[1]),),
    )
    argv = make_server_argv("llama/bin/llama-server", str(files[0]), settings)
    DockerEngine().interact("serve", argv, inputs=files, port=8123)
    words = _read_run(docker)
    assert words[words.index("--lora-scaled") + 1] == "/in/1/a b.gguf:0"
    assert words[words.index("--path") + 1] == "/opt/chat-page"


def test_a_taken_port_is_dockers_error(docker: FakeDocker) -> None:
    docker.answer("run", err="docker: port is already allocated.\n", code=125)
    with pytest.raises(HostError, match="could not be run"):
        DockerEngine().interact("serve", ["llama/bin/llama-server"], port=8123)


def test_a_work_directory_is_labelled_by_its_true_path(
    docker: FakeDocker, work: Path, tmp_path: Path
) -> None:
    """The next build may see the store by another path."""
    (tmp_path / "link").symlink_to(tmp_path / "store")
    linked = tmp_path / "link" / ".tmp" / "work"
    _run(linked, _make_job(linked))
    assert f"io.tristill.work={work}" in _read_run(docker)
    assert os.path.realpath(linked) == str(work)
