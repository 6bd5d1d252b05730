"""Rows, tokens and steps of a data set that is at hand."""

import json
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.estimate.rows import (
    count_rows,
    count_steps,
    count_training_steps,
    read_sealed_rows,
)
from pipeline.recipe.recipe import Recipe, read_recipe

BASE = '[base]\nsource = "demo"\n'


def write_recipe(folder: Path, rows: list[dict[str, object]], more: str = "") -> Recipe:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "mine.toml"
    path.write_text(f'{BASE}[evaluate]\nproblems = 1\n[dataset]\nsource = "rows.jsonl"\n{more}')
    return read_recipe(path)


def make_row(number: int, characters: int = 400) -> dict[str, object]:
    return {"problem": f"{number:08d}", "thinking": "t" * (characters - 9), "solution": "s"}


def test_steps_of_a_published_run() -> None:
    """2,324 rows, one at a time, four to a step, three times."""
    assert count_steps(2324, batch_size=1, accumulation=4, epochs=3.0) == 1743


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation", "epochs", "steps"),
    [
        (10, 4, 2, 1.0, 2),
        (9, 4, 2, 1.0, 2),
        (8, 4, 2, 1.0, 1),
        (8, 4, 2, 1.5, 2),
        (1, 8, 8, 2.0, 2),
    ],
)
def test_the_last_part_of_a_pass_is_a_step(
    rows: int, batch_size: int, accumulation: int, epochs: float, steps: int
) -> None:
    found = count_steps(rows, batch_size=batch_size, accumulation=accumulation, epochs=epochs)
    assert found == steps


def test_rows_that_cleaning_drops_are_not_counted(tmp_path: Path) -> None:
    rows = [make_row(n) for n in range(20)] + [make_row(0), make_row(21, 5000)]
    rows += [{"problem": " ", "thinking": "t", "solution": "s"}]
    found = count_rows(write_recipe(tmp_path, rows, "held_out = 5\nmax_characters = 2000\n"))
    assert found is not None
    assert (found.read, found.train, found.held_out) == (23, 15, 5)
    assert found.why


def test_a_row_that_is_too_long_is_left_out_or_cut(tmp_path: Path) -> None:
    rows = [make_row(n, 400 if n < 11 else 40_000) for n in range(21)]
    more = "held_out = 1\nsequence_length = 2048\n"
    dropped = count_rows(write_recipe(tmp_path, rows, more))
    cut = count_rows(write_recipe(tmp_path, rows, more + 'too_long = "truncate"\n'))
    assert dropped is not None
    assert cut is not None
    assert dropped.train < cut.train == 20
    assert dropped.too_long_share == cut.too_long_share == pytest.approx(0.5, abs=0.06)
    assert cut.tokens > 2048 * 9


def test_the_demonstration_is_counted_to_the_token() -> None:
    """As its built data set is."""
    found = count_rows(read_recipe(REPOSITORY / "recipes" / "demo.toml"))
    assert found is not None
    assert (found.train, found.held_out) == (4000, 400)
    assert (found.tokens, found.supervised_tokens, found.why) == (252_000, 184_000, "")


def test_packs_make_fewer_steps(tmp_path: Path) -> None:
    rows = [make_row(n) for n in range(101)]
    plain = write_recipe(tmp_path, rows, "held_out = 1\n")
    found = count_rows(plain)
    assert found is not None
    assert count_training_steps(plain, found) == 75
    packed = write_recipe(tmp_path, rows, "held_out = 1\n[train]\npack_tokens = 2048\n")
    assert count_training_steps(packed, found) < 75
    fixed = write_recipe(tmp_path, rows, "held_out = 1\n[train]\nmax_steps = 7\n")
    assert count_training_steps(fixed, found) == 7


def test_what_is_sealed_is_exact(tmp_path: Path) -> None:
    split = {"rows": 90, "tokens": 9000, "supervised_tokens": 4000, "dropped": {"x": 10}}
    document = {"train": split | {"truncated": 0}, "held_out": {"rows": 5}}
    (tmp_path / "statistics.json").write_text(json.dumps(document))
    found = read_sealed_rows(tmp_path)
    assert found is not None
    assert (found.train, found.held_out, found.supervised_tokens) == (90, 5, 4000)
    assert found.too_long_share == pytest.approx(0.1)
    assert (found.row_tokens, found.why) == (100.0, "")


def test_what_cannot_be_counted_here_is_not_made_up(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    path = tmp_path / "mine.toml"
    path.write_text(f'{BASE}[dataset]\nsource = "rows.parquet"\n')
    assert count_rows(read_recipe(path)) is None
    assert read_sealed_rows(tmp_path) is None
