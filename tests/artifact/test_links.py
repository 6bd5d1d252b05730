"""Links beside the store lead to what was sealed last."""

from pathlib import Path

from pipeline.artifact.links import write_links
from pipeline.artifact.manifest import Manifest
from pipeline.artifact.rule import Key
from pipeline.artifact.store import Artifact


def _make_artifact(path: Path) -> Artifact:
    path.mkdir(parents=True)
    return Artifact(
        name="text",
        key=Key("k"),
        path=path,
        manifest=Manifest(files=(), document={}),
        seconds=None,
        sealed_at=None,
    )


def test_a_link_is_replaced_and_survives_a_move_of_both(tmp_path: Path) -> None:
    root = tmp_path / "here"
    directory = root / "out" / "demo"
    for name in ("old", "new"):
        artifact = _make_artifact(root / "store" / name)
        links = write_links(directory, {"text": artifact})
        assert links["text"].resolve() == artifact.path
    assert [path.name for path in directory.iterdir()] == ["text"]
    moved = root.rename(tmp_path / "there")
    assert (moved / "out" / "demo" / "text").resolve() == moved / "store" / "new"
