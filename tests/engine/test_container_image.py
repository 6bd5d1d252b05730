"""A tag says what an image was made from; the Dockerfiles and the code say the same."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY, make_digest
from pipeline.engine import container_image, docker_client, image, image_build, install
from pipeline.engine.container_image import (
    NAMES,
    find_dockerfile,
    find_image,
    list_sources,
    make_environment_digest,
    make_labels,
    make_tag,
)
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.errors import HostError

_PINNED = re.compile(r"debian:bookworm-\d{8}-slim@sha256:[0-9a-f]{64}")
_AROUND = {
    "HOME": "/tmp",
    "PATH": "/opt/tristill/bin:/opt/tristill/llama/bin:/usr/bin:/bin",
    "PYTHONPATH": "/tristill",
    "TMPDIR": "/tmp",
    "TRISTILL_ENVIRONMENT": "${ENVIRONMENT}",
    "USER": "tristill",
}


def _read_instructions(name: str) -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, each on one line."""
    text = find_dockerfile(name).read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined]


def _read_final(name: str, wanted: str) -> dict[str, str]:
    """Return the pairs that the last stage's instructions of that name set."""
    pairs: dict[str, str] = {}
    for instruction, rest in _read_instructions(name):
        if instruction == "FROM":
            pairs = {}
        elif instruction == wanted:
            pairs |= dict(word.split("=", 1) for word in shlex.split(rest))
    return pairs


def _read_stages(name: str) -> dict[str, list[tuple[str, str]]]:
    stages: dict[str, list[tuple[str, str]]] = {}
    stage = ""
    for instruction, rest in _read_instructions(name):
        stage = rest.rpartition(" ")[2] if instruction == "FROM" else stage
        stages.setdefault(stage, []).append((instruction, rest))
    return stages


@pytest.mark.parametrize("name", NAMES)
def test_a_dockerfile_sets_what_the_code_says(name: str) -> None:
    own = {"TRISTILL_IMAGE": IMAGES[name].kind}
    assert _read_final(name, "ENV") == {**IMAGES[name].variables, **_AROUND, **own}


@pytest.mark.parametrize("name", NAMES)
def test_a_dockerfile_labels_the_image(name: str) -> None:
    labels = _read_final(name, "LABEL")
    described = {f"org.opencontainers.image.{each}" for each in ("title", "description")}
    assert labels.keys() == make_labels(name).keys() | described | {
        "org.opencontainers.image.licenses"
    }
    assert labels["io.tristill.recipe"] == "${RECIPE}"
    assert labels["io.tristill.environment"] == "${ENVIRONMENT}"
    assert labels["io.tristill.accelerator"] == "${ACCEL}"


@pytest.mark.parametrize("name", NAMES)
def test_a_dockerfile_is_short_and_runs_as_nobody(name: str) -> None:
    assert len(find_dockerfile(name).read_text().splitlines()) < 70
    assert ("USER", "65532:65532") in _read_instructions(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_stage_comes_from_the_one_pinned_base(name: str) -> None:
    instructions = _read_instructions(name)
    arguments = [rest for instruction, rest in instructions if instruction == "ARG"]
    base = next(each.partition("=")[2] for each in arguments if each.startswith("BASE_IMAGE="))
    assert _PINNED.fullmatch(base)
    known = {"scratch", "${BASE_IMAGE}"}
    for instruction, rest in instructions:
        if instruction == "FROM":
            source, _, stage = rest.partition(" AS ")
            assert source in known
            known.add(stage)


def test_all_dockerfiles_share_one_base_and_one_llama() -> None:
    convert, train, serve = map(_read_stages, ("convert", "train", "serve"))
    assert convert["base"] == train["base"] == serve["base"]
    assert convert["build"] == train["build"] == serve["build"]
    assert convert["llama"] == serve["llama"]


@pytest.mark.parametrize("name", NAMES)
def test_the_repository_reaches_a_build_by_mounts_alone(name: str) -> None:
    for instruction, rest in _read_instructions(name):
        assert instruction != "ADD"
        assert instruction != "COPY" or "--from=" in rest


@pytest.mark.parametrize("name", NAMES)
def test_what_a_dockerfile_mounts_is_let_into_the_build(name: str) -> None:
    dockerfile = find_dockerfile(name).read_text()
    sources = list_sources(dockerfile, "cpu")
    for mounted in re.findall(r"type=bind,source=([^,]+)", dockerfile):
        path = mounted.replace("${ACCEL}", "cpu")
        assert any(f"{source}/".startswith(f"{path}/") for source in sources), path


@pytest.mark.parametrize("name", NAMES)
def test_one_date_stands_in_every_dockerfile(name: str) -> None:
    date = f"SOURCE_DATE_EPOCH={image_build.SOURCE_DATE_EPOCH}"
    assert ("ARG", date) in _read_instructions(name)
    assert date in (REPOSITORY / "docker" / "base" / "make-base").read_text()


def test_a_build_sees_what_the_installer_imports_and_no_more() -> None:
    program = "import pipeline.engine.install, sys; print(*(getattr(module, '__file__', None) for "
    program += (
        "name, module in sys.modules.items() if name.partition('.')[0] == 'pipeline'), sep='\\n')"
    )
    told = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {str(Path(path).relative_to(REPOSITORY)) for path in told.stdout.splitlines()}
    sources = list_sources(find_dockerfile("convert").read_text(), "cpu")
    compiled = {str(path.relative_to(REPOSITORY)) for path in image.KERNEL_SOURCES}
    assert {path for path in sources if path.startswith("pipeline/")} == imported | compiled


@pytest.mark.parametrize("name", NAMES)
def test_the_environment_is_that_of_the_virtual_environment(name: str) -> None:
    assert make_environment_digest(name) == make_digest(make_environment_document(IMAGES[name]))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what images are made from."""
    names = [find_dockerfile(name).name for name in NAMES]
    sources = {
        source
        for name in NAMES
        for source in list_sources(find_dockerfile(name).read_text(), IMAGES[name].accelerator)
    }
    for path in (".dockerignore", *names, *sources):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / path, tmp_path / path)
    monkeypatch.setattr(container_image, "REPOSITORY", tmp_path)
    for module in (image, install):
        monkeypatch.setattr(module, "LOCKS", tmp_path / "docker")
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [
        "Dockerfile.convert",
        "docker/convert.lock",
        "docker/llama-build.lock",
        "docker/llama.lock",
        "docker/torch-cpu.lock",
        "pipeline/engine/install.py",
        "pipeline/engine/packages.py",
    ],
)
def test_whatever_makes_an_image_is_in_its_tag(copy: Path, path: str) -> None:
    before = make_tag("convert")
    assert re.fullmatch(r"tristill-convert:cpu-[0-9a-f]{16}", before)
    with (copy / path).open("a") as file:
        file.write("# changed\n")
    assert make_tag("convert") != before


@pytest.mark.parametrize(
    "path", ["Dockerfile.train", "docker/train.lock", "pipeline/errors.py", "pipeline/cli.py"]
)
def test_what_does_not_make_an_image_is_not_in_its_tag(copy: Path, path: str) -> None:
    before = make_tag("convert")
    with (copy / path).open("a") as file:
        file.write("# changed\n")
    assert make_tag("convert") == before


@pytest.mark.parametrize(
    ("path", "changed"),
    [
        ("docker/torch-cuda.lock", {"train-cuda"}),
        ("docker/torch-cpu.lock", {"convert", "train"}),
        ("docker/llama-cuda.lock", {"serve-cuda"}),
        ("docker/serve/cuda.cmake", {"serve-cuda"}),
    ],
)
def test_a_variant_has_an_environment_of_its_own(copy: Path, path: str, changed: set[str]) -> None:
    assert make_tag("train-cuda").startswith("tristill-train:cuda-")
    before = {name: make_environment_digest(name) for name in NAMES}
    assert len(set(before.values())) == len(NAMES)
    with (copy / path).open("a") as file:
        file.write("# changed\n")
    after = {name: make_environment_digest(name) for name in NAMES}
    assert {name for name in NAMES if after[name] != before[name]} == changed


def _hold(monkeypatch: pytest.MonkeyPatch, *documents: dict[str, Any]) -> None:
    monkeypatch.setattr(docker_client, "read_images", lambda tags: list(documents))


def test_an_image_is_found_by_its_tag_and_its_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    _hold(monkeypatch)
    assert find_image("train") is None
    _hold(monkeypatch, {"Id": "sha256:1", "Config": {"Labels": make_labels("train")}})
    assert find_image("train") == "sha256:1"


@pytest.mark.parametrize("labels", [None, {}, {"io.tristill.recipe": "0" * 64}])
def test_an_image_under_a_tag_that_is_not_its_own_is_refused(
    monkeypatch: pytest.MonkeyPatch, labels: dict[str, str] | None
) -> None:
    _hold(monkeypatch, {"Id": "sha256:1", "Config": {"Labels": labels}})
    with pytest.raises(HostError, match=f"docker image rm {make_tag('train')}"):
        find_image("train")
