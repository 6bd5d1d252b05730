"""out/: links to sealed artifacts, replaced in one step."""

from pathlib import Path

from pipeline.artifact.links import read_links, write_link
from pipeline.artifact.store import open_store
from tests.artifact.sealing import seal_small


def test_a_link_leads_to_the_artifact_and_moves_with_the_store(tmp_path: Path) -> None:
    store = open_store(tmp_path / "here" / "store")
    sealed = seal_small(store)
    link = write_link(store.out / "demo", sealed)
    assert (link / "config.json").read_bytes() == b"{}"
    assert read_links(store.out / "demo") == {"text": sealed.path.name}
    (tmp_path / "here").rename(tmp_path / "there")
    assert (tmp_path / "there" / "out" / "demo" / "text" / "config.json").read_bytes() == b"{}"


def test_a_link_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    write_link(store.out / "demo", seal_small(store, options={"rank": 1}))
    newer = seal_small(store, options={"rank": 2})
    link = write_link(store.out / "demo", newer)
    assert link.resolve() == newer.path
    assert list((store.out / "demo").iterdir()) == [link]


def test_a_right_link_is_left_alone(tmp_path: Path) -> None:
    """So that a build of nothing works where `out/` is read-only."""
    store = open_store(tmp_path / "store")
    sealed = seal_small(store)
    link = write_link(store.out / "demo", sealed)
    inode = link.lstat().st_ino
    assert write_link(store.out / "demo", sealed).lstat().st_ino == inode
