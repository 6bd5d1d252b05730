"""An image is built once, with what the caller has configured, and says why when it cannot be."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.engine.container_image import (
    make_environment_digest,
    make_labels,
    make_recipe_digest,
    make_tag,
)
from pipeline.engine.image_build import Variant, build, make_build_argv, provide
from pipeline.engine.image_registry import Registry
from pipeline.errors import CapacityError, HostError
from tests.engine.fake_images import FakeImages, install_fake_images

_TRAIN = Variant(name="train")
_PROVIDE = "from pipeline.engine.image_build import Variant, provide; "
_PROVIDE += "provide(Variant(name='train'), None)"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeImages:
    return install_fake_images(tmp_path / "docker", monkeypatch)


def test_the_command_that_builds_an_image() -> None:
    variant = Variant(name="train", base="base:local")
    assert make_build_argv(variant, tag="some:tag", options=["--no-cache"]) == [
        *("docker", "build", "--progress", "plain", "--network", "host", "--provenance", "false"),
        *("--file", str(REPOSITORY / "Dockerfile.train"), "--tag", "some:tag"),
        *("--build-arg", "ACCEL=cpu"),
        *("--build-arg", f"ENVIRONMENT={make_environment_digest('train')}"),
        *("--build-arg", f"RECIPE={make_recipe_digest('train')}"),
        *("--build-arg", "SOURCE_DATE_EPOCH=1763683200"),
        *("--build-arg", "BASE_IMAGE=base:local"),
        "--no-cache",
        str(REPOSITORY),
    ]


def test_an_image_that_is_here_is_not_built(docker: FakeImages) -> None:
    provide(_TRAIN, None)
    provide(_TRAIN, None)
    (call,) = docker.read_calls("build")
    assert call[call.index("--tag") + 1] == make_tag("train")


def test_two_calls_at_once_build_one_image(docker: FakeImages) -> None:
    calls = [
        subprocess.Popen(
            [sys.executable, "-c", _PROVIDE], cwd=REPOSITORY, env={**os.environ, "LINGER": "1"}
        )
        for _ in range(2)
    ]
    assert [call.wait() for call in calls] == [0, 0]
    assert len(docker.read_calls("build")) == 1


def test_an_image_that_a_registry_has_is_not_built(docker: FakeImages, tmp_path: Path) -> None:
    registry = Registry(address="reg.example/me", lock=tmp_path / "images.lock")
    docker.hold(registry.make_reference("train"), make_labels("train"))
    provide(_TRAIN, registry)
    assert docker.read_calls("build") == []
    assert docker.read_calls("tag") == [
        ["tag", registry.make_reference("train"), make_tag("train")]
    ]


def test_an_image_that_a_registry_lacks_is_built(docker: FakeImages, tmp_path: Path) -> None:
    provide(_TRAIN, Registry(address="reg.example/me", lock=tmp_path / "images.lock"))
    assert len(docker.read_calls("build")) == 1


def test_a_build_gets_the_callers_settings(
    docker: FakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("certificate")
    monkeypatch.setenv("PIP_CERT", str(bundle))
    monkeypatch.setenv("PIP_INDEX_URL", "https://me:secret@one.example/simple")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy.example")
    provide(_TRAIN, None)
    (call,) = docker.read_calls("build")
    assert "secret@" not in " ".join(call)
    assert call[call.index("HTTPS_PROXY") - 1] == "--build-arg"
    assert (docker.folder / "ca").read_text() == "certificate"
    assert (docker.folder / "pip_conf").read_text() == (
        "[global]\n"
        "cert = /etc/ssl/certs/ca-certificates.crt\n"
        "index-url = https://me:secret@one.example/simple\n"
    )


def test_a_build_gets_the_callers_locked_wheels(
    docker: FakeImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "torch-1-py3-none-any.whl"
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / name).write_text("torch")
    (folder / "other-1-py3-none-any.whl").write_text("other")
    digest = hashlib.sha256(b"torch").hexdigest()
    lock = tmp_path / "torch.lock"
    lock.write_text(f"torch==1 \\\n    --hash=sha256:{digest}\n")
    monkeypatch.setattr("pipeline.engine.image_build.list_locks", lambda variant: [lock])
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    provide(_TRAIN, None)
    assert json.loads((docker.folder / "wheels").read_text()) == [name]
    assert (docker.folder / "pip_conf").read_text() == "[global]\nfind-links = /wheels\n"
    assert str(folder) not in str(docker.read_calls("build"))


def test_a_build_that_fails_says_why(docker: FakeImages) -> None:
    (docker.folder / "broken").touch()
    with pytest.raises(HostError, match="the last words of the build") as caught:
        build(_TRAIN, tag="some:tag")
    log = caught.value.then.partition("read ")[2].partition(";")[0]
    assert "the last words of the build" in Path(log).read_text()


def test_a_disk_that_is_too_small_is_said_before_the_work(
    docker: FakeImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(free=10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CapacityError, match=r"1\.0 GB free"):
        provide(_TRAIN, None)
    assert docker.read_calls("build") == []
