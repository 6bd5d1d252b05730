"""One tiny checkpoint, its rows and its dataset, made once for all tests of this folder."""

import random
from pathlib import Path

import pytest

from pipeline.sft.rows import Row, write_rows
from tests.tiny_text import write_text_checkpoint


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("text")
    write_text_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("rows")
    draw = random.Random(0)
    made = [Row(f"r{n}", f"{n}+{n}?", "+" * draw.randint(1, 9), str(n + n)) for n in range(40)]
    write_rows(folder / "train.jsonl", made[:32])
    write_rows(folder / "held_out.jsonl", made[32:])
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, text: Path, rows: Path) -> Path:
    from pipeline.sft import dataset as stage

    out: Path = tmp_path_factory.mktemp("dataset")
    stage.run({"text": text, "rows": rows}, stage.Options(sequence_length=64), out)
    return out
