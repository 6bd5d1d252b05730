"""One tiny checkpoint, its rows and its dataset, made once for all tests of this folder."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.canonical import assistant, chat, user, write_canonical
from tests.tiny_text import write_text_checkpoint


@pytest.fixture(autouse=True)
def _allow_plain_attention_again() -> Iterator[None]:
    """A run forbids it for its process, which here is that of the next test too."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.backends.cuda.enable_math_sdp(True)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("text")
    write_text_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("rows")
    draw = random.Random(0)
    made = [
        chat(
            user(f"{n}+{n}?"),
            assistant(str(n + n), "+" * draw.randint(1, 9)),
            row_id=f"r{n}",
        )
        for n in range(40)
    ]
    write_canonical(folder / "train.jsonl", made[:32])
    write_canonical(folder / "held_out.jsonl", made[32:])
    return folder


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory, text: Path, rows: Path) -> Path:
    return make_dataset(text, rows, tmp_path_factory.mktemp("dataset"))


def make_dataset(text: Path, rows: Path, out: Path) -> Path:
    """Return `out` with the rows in it as the data stage writes them."""
    from pipeline.data import dataset as stage

    options = stage.Options(
        sequence_length=64,
        too_long="drop",
        supervise="every",
        thinking="text",
    )
    work = out.with_name(f"{out.name}-work")
    work.mkdir()
    stage.run({"text": text, "rows": rows}, options, out, work)
    return out
