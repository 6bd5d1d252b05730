"""The command line: exit codes, answers on stdout alone, no traceback for what a user can cause."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from pipeline.project import read_project
from tests.artifact.sealing import seal_small, seal_step


def _run(store: Path, *argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *argv[:1], "--store", str(store), *argv[1:]],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["build", "adaptor"], ["no rule makes", "adaptor", "adapter"]),
        (["plan", "--recipe", "absent.toml"], ["cannot be read", "absent.toml", "--recipe"]),
        (["explain", "gguf-Q9_K"], ["no rule makes", "gguf-Q4_K_M"]),
        (["verify", "adapter"], ["nothing to verify", "adapter"]),
        (["rebuild", "rows"], ["nothing to compare", "rows", "build rows"]),
        (["build", "-j", "0"], ["at least 1"]),
        (["build", "-j", "many"], ["invalid"]),
        (["biuld"], ["invalid choice", "build"]),
        (["gpu-check", "train"], ["invalid choice", "'train-cuda', 'serve-cuda')"]),
        (["images", "list", "convrt"], ["invalid choice", "'convert'"]),
        ([], ["VERB"]),
    ],
)
def test_what_cannot_be_meant_ends_with_2(
    tmp_path: Path, argv: list[str], words: list[str]
) -> None:
    told = _run(tmp_path / "store", *argv)
    assert told.returncode == 2
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    assert all(word in told.stderr for word in words), told.stderr


def test_plan_of_the_demonstration(tmp_path: Path) -> None:
    told = _run(tmp_path / "store", "plan", "--json")
    assert told.returncode == 0
    plan = json.loads(told.stdout)
    names = [each["name"] for each in plan["artifacts"]]
    for before, after in [
        ("base", "text"),
        ("rows", "dataset"),
        ("dataset", "training"),
        ("training", "adapter"),
        ("base", "gguf-BF16"),
        ("adapter", "gguf-Q4_K_M"),
        ("gguf-Q4_K_M", "answers"),
    ]:
        assert names.index(before) < names.index(after)
    assert {each["state"] for each in plan["artifacts"]} == {"build"}
    assert all(len(each["key"]) == 64 for each in plan["artifacts"])
    assert set(plan["gguf"]) == {"BF16", "Q8_0", "Q4_K_M"}
    assert plan["parameters"] == {"base": 1_049_856, "trainable": 106_496}
    assert plan["disk"]["needed_bytes"] > 5_000_000
    assert plan["disk"]["free_bytes"] > 0


def test_a_plan_for_people_names_every_artifact(tmp_path: Path) -> None:
    told = _run(tmp_path / "store", "plan")
    assert told.returncode == 0
    for name in ("base", "gguf-Q8_0", "answers-checkpoint", "trainable 106,496 (10.14 %)"):
        assert name in told.stdout


def test_keys_do_not_depend_on_where_the_store_lies(tmp_path: Path) -> None:
    plans = [json.loads(_run(tmp_path / name, "plan", "--json").stdout) for name in ("a", "b")]
    first, second = ([each["key"] for each in plan["artifacts"]] for plan in plans)
    assert first == second


def test_a_renamed_and_moved_data_set_keeps_its_key(tmp_path: Path) -> None:
    keys = set()
    for name in ("one/traces.jsonl", "two/rows.jsonl"):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text('{"problem": "p", "thinking": "t", "solution": "s"}\n')
        recipe = path.with_name("mine.toml")
        recipe.write_text(f'[base]\nsource = "demo"\n[dataset]\nsource = "{path.name}"\n')
        plan = json.loads(
            _run(tmp_path / "store", "plan", "--json", "--recipe", str(recipe)).stdout
        )
        keys.add(tuple(each["key"] for each in plan["artifacts"]))
    assert len(keys) == 1


def test_an_empty_store_is_shown_and_verified(tmp_path: Path) -> None:
    assert json.loads(_run(tmp_path, "show", "--json").stdout) == {"artifacts": []}
    assert json.loads(_run(tmp_path, "verify", "--json").stdout) == {"damaged": []}


def test_explain_gives_the_document_that_the_key_hashes(tmp_path: Path) -> None:
    explained = json.loads(_run(tmp_path, "explain", "training", "--json").stdout)
    assert explained["document"]["options"]["rank"] == 16
    assert set(explained["document"]["inputs"]) == {"text", "dataset"}
    assert explained["changed"] == []


def test_explain_names_the_recipes_field_and_what_follows(tmp_path: Path) -> None:
    """Against the last build of the rule, which is sealed here without running it."""
    recipe = tmp_path / "mine.toml"
    text = (REPOSITORY / "recipes" / "demo.toml").read_text()
    recipe.write_text(text)
    project = read_project(recipe, open_store(tmp_path / "store"))
    for step in project.make_steps(["adapter"]):
        seal_step(step, project.store)
    told = _run(tmp_path / "store", "explain", "adapter", "--recipe", str(recipe))
    assert told.stdout.endswith("nothing changed since the last build\n")
    recipe.write_text(text.replace("rank = 16", "rank = 32").replace("digits = 4", "digits = 5"))
    told = _run(tmp_path / "store", "explain", "adapter", "--recipe", str(recipe))
    assert told.returncode == 0
    files = "merged, adapter-gguf, gguf-BF16, gguf-Q8_0, gguf-Q4_K_M"
    after = f"{files}, answers-checkpoint, answers, divergence\n"
    assert f"training: train.rank 16 -> 32; so adapter, {after}" in told.stdout
    assert (
        f"rows: demo.digits 4 -> 5; so dataset, dataset-report, training, adapter, {after}"
        in told.stdout
    )
    plan = _run(tmp_path / "store", "plan", "--recipe", str(recipe)).stdout
    assert "changed: train.rank" in plan


def test_gc_lists_first_and_removes_when_told(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    sealed = seal_small(store)
    listed = _run(store.root, "gc")
    assert "text" in listed.stdout
    assert "would go" in listed.stdout
    assert sealed.path.is_dir()
    plan = json.loads(_run(store.root, "plan", "--json").stdout)
    assert plan["disk"]["unreached_bytes"] == sealed.manifest.size_bytes + sum(
        path.stat().st_size for path in (store.root / ".logs").iterdir()
    )
    assert "removed" in _run(store.root, "gc", "--delete").stdout
    assert not sealed.path.exists()
    assert _run(store.root, "gc").stdout == "nothing to remove\n"


def test_a_store_that_cannot_be_written_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = _run(tmp_path / "file" / "store", "plan")
    assert told.returncode == 2
    assert "cannot be written" in told.stderr


def test_environments_that_cannot_be_made_end_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRISTILL_ENVS", "/proc/nowhere")
    told = _run(tmp_path / "store", "build", "rows", "--engine", "venv")
    assert told.returncode == 3
    assert "/proc/nowhere" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000));"
        "from pipeline.job import main; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    out.mkdir()
    options = {"seed": 1, "digits": 2, "rows": 300, "held_out": 2}
    job = {"stage": "demo.rows", "inputs": {}, "options": options, "out": str(out)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    told = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "job.json")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 5
    assert "the disk is full" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pipeline", "plan", "--json", "--store", str(tmp_path)]
    with subprocess.Popen(
        argv, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as told:
        assert told.stdout is not None
        assert told.stderr is not None
        told.stdout.close()
        assert told.stderr.read() == ""
    assert told.returncode == 0


def test_verify_names_a_manifest_that_cannot_be_read(tmp_path: Path) -> None:
    lost = tmp_path / f"{'0' * 64}-text"
    lost.mkdir()
    told = _run(tmp_path, "verify", "--json")
    assert told.returncode == 6
    (damage,) = json.loads(told.stdout)["damaged"]
    assert (damage["artifact"], damage["path"]) == (lost.name, "manifest.json")
    assert _run(tmp_path, "plan").returncode == 0, "what the plan does not need is in its way"


def test_a_damaged_store_ends_with_6(tmp_path: Path) -> None:
    plan = json.loads(_run(tmp_path, "plan", "--json").stdout)
    key = plan["artifacts"][0]["key"]
    (tmp_path / f"{key}-{plan['artifacts'][0]['name']}").mkdir()
    told = _run(tmp_path, "plan")
    assert told.returncode == 6
    assert "manifest" in told.stderr


def test_an_error_that_nobody_reads_has_its_code(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pipeline", "build", "adaptor", "--store", str(tmp_path)]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as unread:
        assert subprocess.run(argv, cwd=REPOSITORY, stderr=unread, check=False).returncode == 2
