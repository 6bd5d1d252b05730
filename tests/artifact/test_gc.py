"""gc: what nothing reaches, and never what is being built or read."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifact.gc import collect, find_garbage
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.links import write_link
from pipeline.artifact.quarantine import quarantine
from pipeline.artifact.store import Damage, Store, open_store
from pipeline.artifact.uses import reading_uses, using
from tests.artifact.sealing import seal_small
from tests.artifact.small_build import build_small, make_rules, make_small_steps, start_builder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _names(store: Store) -> list[str]:
    return sorted(artifact.name for artifact in store.read_all()[0])


def test_what_a_recipe_reaches_stays_with_all_it_was_made_from(store: Store) -> None:
    base = seal_small(store, "base")
    text = seal_small(store, "text", inputs={"base": base})
    seal_small(store, "text", options={"rank": 2})
    garbage = find_garbage(store, {text.path.name})
    assert [artifact.manifest.document["options"] for artifact in garbage.artifacts] == [
        {"rank": 2}
    ]
    assert _names(store) == ["base", "text", "text"], "a list removes nothing"
    assert collect(store, {text.path.name}).artifacts == garbage.artifacts
    assert _names(store) == ["base", "text"]
    assert list(store.workspaces.iterdir()) == []


def test_intermediates_go_when_asked_and_only_what_is_not_needed(store: Store) -> None:
    base = seal_small(store, "base")
    text = seal_small(store, "text", inputs={"base": base})
    link = write_link(store.out / "mine", base)
    planned, dispensable = {text.path.name, base.path.name}, {base.path.name}
    with using(store, [base.path.name]):
        assert collect(store, planned, dispensable).artifacts == ()
    collect(store, planned, dispensable)
    assert _names(store) == ["text"]
    assert not link.is_symlink(), "a link to nothing is removed"


def test_what_a_link_points_at_stays(store: Store) -> None:
    base = seal_small(store, "base")
    write_link(store.out / "mine", seal_small(store, "text", inputs={"base": base}))
    seal_small(store, "rows")
    collect(store, set())
    assert _names(store) == ["base", "text"]


def test_an_input_that_is_gone_is_no_trouble(store: Store) -> None:
    base = seal_small(store, "base")
    text = seal_small(store, "text", inputs={"base": base})
    collect(store, {base.path.name})
    assert collect(store, {text.path.name}).artifacts[0].name == "base"


def test_what_is_in_use_stays_until_its_user_ends(store: Store) -> None:
    read = seal_small(store, "text")
    with using(store, [read.path.name]):
        assert collect(store, set()).artifacts == ()
    assert [each.name for each in collect(store, set()).artifacts] == ["text"]


def test_a_killed_user_uses_nothing(store: Store) -> None:
    script = (
        "import os, sys; from pathlib import Path;"
        "from pipeline.artifact.store import open_store; from pipeline.artifact.uses import using;"
        "use = using(open_store(Path(sys.argv[1])), ['x']);"
        "use.__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(store.root)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
    )
    assert len(list((store.root / ".uses").iterdir())) == 1
    with reading_uses(store) as used:
        assert used == set()
    assert list((store.root / ".uses").iterdir()) == []


def test_gc_during_builds_takes_nothing_from_them(store: Store) -> None:
    """Builders at work, and gc over and over, with no recipe and no link to reach anything."""
    builders = [start_builder(store) for _ in range(3)]
    deadline = time.monotonic() + 120
    while any(each.poll() is None for each in builders) and time.monotonic() < deadline:
        collect(store, set())
    told = [each.communicate()[0] for each in builders]
    assert [each.returncode for each in builders] == [0, 0, 0], told


def test_leftovers_go_and_what_is_being_made_stays(store: Store) -> None:
    killed = start_builder(store, "--kill-at", "output hashed")
    killed.communicate()
    damaged = seal_small(store)
    quarantine(store, [Damage(artifact=damaged.path.name, path="x", what="missing")])
    whys = {why for _, why, _ in collect(store, set()).leftovers}
    assert whys == {"its maker died", "found damaged", "their artifacts are gone, or go"}
    assert find_garbage(store, set()).leftovers == ()
    assert not list((store.root / ".logs").iterdir())
    assert [path.name for path in (store.root / ".locks").iterdir()] == ["uses"]


def test_the_log_of_a_failed_stage_stays_while_a_recipe_asks_for_it(store: Store) -> None:
    rules = make_rules(file="absent.jsonl")
    with pytest.raises(Exception, match="nothing was stored"):
        build_small(store, rules)
    planned = {step.directory for step in make_small_steps(store, rules)}
    assert find_garbage(store, planned).leftovers == ()
