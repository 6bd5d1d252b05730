"""A folder with sources of rows, and what the stage `data.rows` makes of them."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.data import rows
from pipeline.data.row import Row, read_rows
from pipeline.data.source import File, Source, make_label, write_source

OPTIONS = rows.Options(
    sources=(),
    held_out=2,
    seed=1,
    max_characters=0,
    require_thinking=False,
    near_duplicates=0.0,
    contamination_words=13,
    conversation_extension=1,
)


def make_pair(question: str = "q", answer: str = "a", **more: Any) -> dict[str, Any]:
    return {"prompt": question, "completion": answer, **more}


def make_pairs(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [make_pair(f"q{n}", f"a{n}") for n in range(start, start + count)]


class Build:
    """A folder with sources, and what the stage makes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: list[str] = []

    def add(self, found: Sequence[Any] | bytes, name: str = "data.jsonl", **declared: Any) -> None:
        content = found
        if not isinstance(content, bytes):
            content = "".join(json.dumps(row) + "\n" for row in found).encode()
        (self.folder / name).write_bytes(content)
        file = File(name=name, sha256=hashlib.sha256(content).hexdigest())
        self.sources.append(write_source(Source(files=(file,), **declared)))

    @property
    def inputs(self) -> dict[str, Path]:
        """The folder, as each source's."""
        return {make_label(number): self.folder for number, _ in enumerate(self.sources, start=1)}

    def run(self, name: str = "out", **options: Any) -> tuple[list[Row], list[Row], Any]:
        """Return training rows, held-out rows and the counts."""
        out = self.folder / name
        out.mkdir()
        made = replace(OPTIONS, sources=tuple(self.sources), **options)
        rows.run(self.inputs, made, out)
        names = sorted(path.name for path in out.iterdir())
        assert names == ["cleaning.json", "held_out.jsonl", "train.jsonl"]
        train, held_out = (list(read_rows(out / f"{each}.jsonl")) for each in ("train", "held_out"))
        counts = json.loads((out / "cleaning.json").read_text())
        assert counts["kept"] == {"train": len(train), "held_out": len(held_out)}
        return train, held_out, counts


def read_question(row: Row) -> str:
    return next(message.content for message in row.messages if message.role == "user")


def make_words(count: int, seed: int) -> list[str]:
    """Return words of six letters, at random."""
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefghij", k=6)) for _ in range(count)]
