"""Exactly the named files are copied, each checked against its sha256."""

from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.checkpoint import base
from pipeline.errors import StageError
from tests.checkpoint.tiny_base import write_base

pytestmark = pytest.mark.convert


def list_files(source: Path) -> tuple[str, ...]:
    paths = [path for path in sorted(source.iterdir()) if path.suffix != ".md"]
    return tuple(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in paths)


def test_the_named_files_and_no_others_are_copied(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    write_base(source)
    files = list_files(source)
    (source / "consolidated.safetensors").write_bytes(b"a second copy")
    out.mkdir()
    base.run({"source": source}, base.Options(files=files), out)
    assert {path.name for path in out.iterdir()} == {line.split("  ")[1] for line in files}
    for path in out.iterdir():
        assert path.read_bytes() == (source / path.name).read_bytes()


def test_a_file_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_base(source)
    files = list_files(source)
    (source / "config.json").write_text("{}")
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="is not what was planned") as error:
        base.run({"source": source}, base.Options(files=files), tmp_path / "out")
    assert error.value.on == "config.json"


def test_a_missing_shard_is_refused_before_copying(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_base(source)
    (source / "model-00003-of-00003.safetensors").unlink()
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match=r"model-00003-of-00003\.safetensors"):
        base.run({"source": source}, base.Options(files=list_files(source)), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_shard_that_the_plan_does_not_name_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_base(source)
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="changed while it was read"):
        base.run({"source": source}, base.Options(files=list_files(source)[:-5]), tmp_path / "out")
