"""What does not fit or cannot be written is said before a build finds out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.doctor.checks import examine
from pipeline.doctor.disk import read_place
from pipeline.doctor.finding import Finding
from pipeline.doctor.situation import Situation
from pipeline.engine import llama, venv
from pipeline.engine.image import IMAGES
from tests.doctor.fake_host import NEEDS, FakeHost


def _find(seen: Situation, check: str) -> Finding:
    return next(finding for finding in examine(seen) if finding.check == check)


def _change(seen: Situation, place: str, **changes: Any) -> Situation:
    return replace(seen, **{place: replace(getattr(seen, place), **changes)})


def _complete(envs_dir: Path, *images: str) -> None:
    """Mark the environments as whole."""
    for made in (llama.make_environment(), *(venv.make_environment(IMAGES[x]) for x in images)):
        made.find(envs_dir).mkdir(parents=True)
        (made.find(envs_dir) / "complete.json").touch()


def test_environments_that_are_whole(host: FakeHost) -> None:
    _complete(host.home / "envs", "convert", "serve", "train")
    found = host.examine()
    assert found["environments"].state == "ok"
    assert "convert, serve, train are whole" in found["environments"].what
    assert found["compilers"].what == "not needed: llama.cpp is compiled already"


def test_environments_still_to_be_made(host: FakeHost) -> None:
    _complete(host.home / "envs", "convert")
    found = host.examine()["environments"]
    assert found.state == "ok"
    assert found.what.startswith("serve, train will be made by the first build in ")
    assert found.why.startswith("1.9 GB needed, ")


@pytest.mark.parametrize(("same", "needed"), [(True, "1.9 GB"), (False, "1.9 GB")])
def test_too_little_space_for_the_environments(host: FakeHost, same: bool, needed: str) -> None:
    _complete(host.home / "envs", "convert")
    seen = host.read()
    device = seen.store_place.device + (not same)
    tight = _change(seen, "environments_place", free_bytes=1_000_000_000, device=device)
    found = _find(tight, "environments")
    assert found.state == "problem"
    assert found.what.startswith("too little space for serve, train in ")
    assert f"need {needed}, 1.0 GB are free" in found.why
    assert ("and the artifacts" in found.why) == same
    assert found.fix == "free space, or export TRISTILL_ENVS=DIRECTORY on a larger disk"


def test_environments_where_nothing_can_be_written(host: FakeHost) -> None:
    found = _find(_change(host.read(), "environments_place", writable=False), "environments")
    assert found.state == "problem"
    assert found.fix == "export TRISTILL_ENVS=DIRECTORY that can be written"


def test_a_store_that_is_not_there_is_looked_for_above(host: FakeHost) -> None:
    found = host.examine()
    assert found["store"].what == f"{host.home} can be written"
    assert found["locks"].what == f"locks work at {host.home}"
    assert not (host.home / "store").exists()


def test_a_store_on_a_read_only_disk(host: FakeHost) -> None:
    seen = _change(host.read(), "store_place", writable=False)
    found = _find(seen, "store")
    assert (found.state, found.what) == ("problem", "the store cannot be made")
    assert found.fix == "mend its permissions, or name another store with --store DIR"
    done = replace(seen, needs=replace(NEEDS, missing_bytes={}))
    assert _find(done, "store").state == "warning"


def test_proc_cannot_be_written_even_by_root() -> None:
    assert not read_place(Path("/proc/1/store")).writable


def test_too_little_space_for_the_artifacts(host: FakeHost) -> None:
    tight = _change(host.read(), "store_place", free_bytes=2_500_000)
    found = _find(tight, "disk")
    assert found.state == "problem"
    assert found.what == f"4,000,000 bytes needed, 2,500,000 free at {host.home}"
    assert found.why == "the largest: text 3,000,000, adapter 1,000,000"
    assert found.fix.endswith("name a store on a larger disk with --store DIR")
    unhashed = replace(tight, needs=replace(NEEDS, settled=False))
    assert _find(unhashed, "disk").what.startswith("at most 4,000,000 bytes needed")


@pytest.mark.parametrize("place", ["store_place", "environments_place"])
def test_no_inodes_left(host: FakeHost, place: str) -> None:
    seen = host.read()
    apart = _change(seen, "environments_place", path=Path("/envs"), device=-1)
    full = _change(apart, place, free_files=17)
    found = _find(full, "inodes")
    assert found.state == "problem"
    assert found.what == f"17 files can still be made at {getattr(full, place).path}"
    assert found.fix.startswith("remove files there (df -i)")
    endless = _change(full, place, free_files=None)
    assert _find(endless, "inodes").state == "ok"


def test_locks_that_do_nothing(host: FakeHost) -> None:
    found = _find(_change(host.read(), "store_place", locks=False), "locks")
    assert (found.state, found.fix) == (
        "warning",
        "name a store on a local disk with --store DIR",
    )
    unknown = _find(_change(host.read(), "store_place", locks=None), "locks")
    assert (unknown.state, unknown.fix) == ("ok", "")
