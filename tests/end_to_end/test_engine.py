"""The build engine on the real chain: nothing twice, nothing half-made, the same bytes again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.seal import seal
from pipeline.artifact.store import open_store
from pipeline.artifact.workspace import remove_tree
from tests.artifact.sealing import damage_file
from tests.end_to_end.tiny_build import RECIPE, Build, find_processes

pytestmark = pytest.mark.train


def test_a_second_build_builds_nothing(built: Build) -> None:
    before = sorted(built.store.glob("*"))
    told = built.run("build")
    assert told.returncode == 0
    assert "nothing to build" in told.stderr
    assert sorted(built.store.glob("*")) == before


def test_a_changed_field_builds_only_what_depends_on_it(built: Build, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.read_text().replace("max_steps = 200", "max_steps = 201"))
    plan = json.loads(built.run("plan", "--json", recipe=recipe).stdout)
    states = {each["name"]: each["state"] for each in plan["artifacts"]}
    assert [name for name, state in states.items() if state == "cached"] == [
        "rows",
        "base",
        "text",
        "dataset",
    ]
    explained = json.loads(built.run("explain", "--json", "training", recipe=recipe).stdout)
    assert explained["changed"] == [{"field": "options.max_steps", "old": 200, "new": 201}]


def test_verify_finds_nothing_wrong(built: Build) -> None:
    told = built.run("verify", "--json")
    assert told.returncode == 0
    assert json.loads(told.stdout) == {"damaged": []}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_an_interrupted_build_stops_its_stage_and_seals_nothing(
    built: Build, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE.read_text().replace("[demo]\nseed = 1", "[demo]\nseed = 2"))
    before = sorted(path.name for path in built.store.glob("*-*"))
    argv = ["build", "base", "--store", str(built.store), "--recipe", str(recipe)]
    argv += ["--engine", "venv"]
    with subprocess.Popen(
        [sys.executable, "-m", "pipeline", *argv],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as building:
        assert building.stderr is not None
        told = iter(building.stderr.readline, "")
        assert any("step" in line for line in told), "the stage never began to train"
        building.send_signal(number)
        rest = building.stderr.read()
    assert building.returncode == code
    assert "Traceback" not in rest
    assert sorted(path.name for path in built.store.glob("*-*")) == before
    if number != signal.SIGKILL:
        assert "interrupted" in rest
        assert list((built.store / ".tmp").iterdir()) == []
    deadline = time.monotonic() + 10  # the stage would train on for longer
    while find_processes(str(built.store)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not find_processes(str(built.store)), "a process of the stage is still running"
    for leftover in (built.store / ".tmp").iterdir():
        remove_tree(leftover)


def test_a_training_that_was_killed_is_gone_on_with_to_the_same_bytes(copied: Build) -> None:
    before = _read_digests(copied)
    _remove(copied, "training", "adapter")
    argv = ["build", "adapter", "--store", str(copied.store), "--recipe", str(RECIPE)]
    for at, number in ((70, signal.SIGKILL), (130, signal.SIGINT)):
        with subprocess.Popen(
            [sys.executable, "-m", "pipeline", *argv, "--engine", "venv"],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as building:
            assert building.stderr is not None
            lines = iter(building.stderr.readline, "")
            assert any(f"step {at}/200" in line for line in lines), f"step {at} was never taken"
            building.send_signal(number)
            rest = building.stderr.read()
    assert "the same command goes on from there" in rest
    assert sorted(_read_digests(copied)) == sorted(before.keys() - {"training", "adapter"})
    told = copied.run("build", "adapter")
    assert told.returncode == 0, told.stderr
    assert "goes on after step" in told.stderr
    assert _read_digests(copied) == before
    assert not any((copied.store / ".work").iterdir())


def test_another_checkpoint_is_taken_without_training(copied: Build, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        RECIPE.read_text().replace("max_steps = 200", 'max_steps = 200\ncheckpoint = "step:100"')
    )
    told = copied.run("build", "adapter", recipe=recipe)
    assert told.returncode == 0, told.stderr
    assert "[1/1] adapter" in told.stderr
    name = "adapter_model.safetensors"
    there = copied.find("training") / "step-000100" / name
    assert (copied.find("adapter") / name).read_bytes() == there.read_bytes()


@pytest.fixture
def copied(built: Build, tmp_path: Path) -> Build:
    """Return a copy of the store, to be broken."""
    shutil.copytree(built.store, tmp_path / "store", symlinks=True)
    shutil.copytree(built.store.parent / "out", tmp_path / "out", symlinks=True)
    return Build(tmp_path / "store")


def _read_digests(build: Build) -> dict[str, str]:
    return {each.name: each.manifest.sha256 for each in open_store(build.store).read_all()[0]}


def _remove(build: Build, *names: str) -> None:
    for name in names:
        remove_tree(build.find(name))


def test_every_stage_gives_the_same_bytes_again_in_other_surroundings(built: Build) -> None:
    """Another directory, hash seed, time zone, locale, umask and year; training included."""
    told = built.run("rebuild")
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("byte for byte") == len(_read_digests(built)) == 12


def test_files_of_every_type_are_built_side_by_side_with_the_same_bytes(copied: Build) -> None:
    before = _read_digests(copied)
    _remove(copied, "gguf-Q8_0", "gguf-Q4_K_M", "answers-checkpoint", "answers")
    told = copied.run("build", "-j", "3")
    assert told.returncode == 0, told.stderr
    assert _read_digests(copied) == before
    assert "gguf-Q8_0 | " in told.stderr
    assert "gguf-Q4_K_M | " in told.stderr
    assert copied.store.parent.joinpath("out", "tiny", "answers").is_dir()


def test_eight_makes_at_once_build_each_file_once(copied: Build) -> None:
    before = _read_digests(copied)
    types = ("gguf-BF16", "gguf-Q8_0", "gguf-Q4_K_M")
    _remove(copied, *types)
    for log in copied.store.glob(".logs/*-gguf-*.log"):
        log.unlink()
    argv = ["make", "gguf", f"RECIPE={RECIPE}", f"STORE={copied.store}", "ENGINE=venv"]
    argv += [f"PYTHON={sys.executable}"]
    makes = [
        subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(8)
    ]
    told = [each.communicate()[0].decode() for each in makes]
    assert [each.returncode for each in makes] == [0] * 8, told
    assert _read_digests(copied) == before
    started = [
        log.read_text().count("-m pipeline.job") for log in copied.store.glob(".logs/*gguf*.log")
    ]
    assert started == [1, 1, 1]
    assert any("which makes gguf-" in each for each in told)


def test_another_checkout_shares_the_store(built: Build, tmp_path: Path) -> None:
    """At another path, as another user would have it: the same keys, so nothing to build."""
    checkout = tmp_path / "another checkout"
    ignore = shutil.ignore_patterns("store", "out", ".git", "*_cache", "__pycache__")
    shutil.copytree(REPOSITORY, checkout, ignore=ignore)
    told = subprocess.run(
        [sys.executable, "-m", "pipeline", "build", "--store", built.store, "--recipe", RECIPE],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "nothing to build" in told.stderr


def test_a_damaged_file_is_named_set_aside_and_made_anew(copied: Build) -> None:
    before = _read_digests(copied)
    path = copied.find("gguf-Q8_0") / "model.gguf"
    directory = path.parent.name
    damage_file(path, "flipped")
    told = copied.run("verify", "--json")
    assert told.returncode == 6
    (damage,) = json.loads(told.stdout)["damaged"]
    assert (damage["artifact"], damage["path"]) == (directory, "model.gguf")
    assert (copied.store / ".quarantine" / f"{directory}.1" / "model.gguf").is_file()
    assert "in quarantine" in copied.run("plan").stdout
    assert copied.run("build", "gguf").returncode == 0
    assert _read_digests(copied) == before
    assert copied.run("verify").returncode == 0


def test_a_rebuild_that_differs_is_told_tensor_by_tensor(copied: Build, tmp_path: Path) -> None:
    """A merged checkpoint with one other value is sealed in the place of the true one."""
    assert copied.run("build", "merged").returncode == 0
    store = open_store(copied.store)
    (merged,) = [each for each in store.read_all()[0] if each.name == "merged"]
    forged = tmp_path / "forged"
    shutil.copytree(merged.path, forged)
    (forged / "manifest.json").unlink()
    path = forged / "model.safetensors"
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80  # the sign of the last value
    path.write_bytes(content)
    remove_tree(merged.path)
    seal(store, forged, key=merged.key, name="merged", manifest=merged.manifest, seconds=1.0)
    told = copied.run("rebuild", "merged")
    assert told.returncode == 7, told.stderr
    assert "model.safetensors: tensor" in told.stdout
    assert "1 of " in told.stdout
    assert "max abs difference" in told.stdout
    assert "a rebuild differs: merged" in told.stderr


def test_the_page_of_the_data_set_is_made_beside_what_is_there(copied: Build) -> None:
    before = _read_digests(copied)
    told = copied.run("build", "dataset", "dataset-report")
    assert told.returncode == 0, told.stderr
    made = _read_digests(copied)
    assert made.keys() - before.keys() == {"dataset-report"}
    page = (copied.find("dataset-report") / "report.html").read_text(encoding="utf-8")
    assert '"id":"train-000000"' in page
    assert '"id":"held-out-000099"' in page
    assert "300 of 700, spread evenly" in page
    assert "nothing to build" in copied.run("build").stderr


def test_intermediates_can_go_and_nothing_is_built_for_it(copied: Build) -> None:
    listed = copied.run("gc", "--intermediates").stdout
    assert "text" in listed
    assert "would go" in listed
    assert len(_read_digests(copied)) == 12
    assert copied.run("gc", "--intermediates", "--delete").returncode == 0
    assert sorted(_read_digests(copied)) == [
        "adapter",
        "answers",
        "answers-checkpoint",
        "divergence",
        "gguf-BF16",
        "gguf-Q4_K_M",
        "gguf-Q8_0",
        "training",
    ]
    told = copied.run("build")
    assert told.returncode == 0
    assert "nothing to build" in told.stderr


def test_the_provenance_of_a_file_anywhere_leads_back_to_every_input(
    built: Build, tmp_path: Path
) -> None:
    shutil.copy(built.find("gguf-Q4_K_M") / "model.gguf", tmp_path / "mine.gguf")
    told = built.run("show", "--provenance", "--json", str(tmp_path / "mine.gguf"))
    assert told.returncode == 0, told.stderr
    document = json.loads(told.stdout)
    assert document["consistent"] is True
    assert len(document["statements"]) == 7
