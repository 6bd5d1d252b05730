"""Dots stand where their numbers say, and names do not touch each other."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.quality import Model
from pipeline.report.quality_plot import format_size, make_quality_plot, spread


def _make_model(file_type: str, size_bytes: int, correct: int) -> Model:
    return Model(
        title=f"GGUF {file_type}" if file_type else "base model",
        type=file_type,
        size_bytes=size_bytes,
        correct=correct,
        total=100,
        interval=(max(0, correct - 5) / 100, min(100, correct + 5) / 100),
        score={},
        distance={},
    )


@given(st.lists(st.floats(48, 384), max_size=40).map(sorted))
def test_names_stay_apart_in_their_order_and_within_the_plot(places: list[float]) -> None:
    found = spread(places)
    apart = min(13, 336 / max(1, len(places)))
    assert all(b - a >= apart - 1e-6 for a, b in pairwise(found))
    assert all(48 - 1e-6 <= each <= 384 + 1e-6 for each in found)


def test_more_is_higher_and_larger_is_further_to_the_right() -> None:
    models = [
        _make_model("", 0, 10),
        _make_model("BF16", 4000, 90),
        _make_model("Q4_K_M", 1000, 70),
    ]
    plot, magnified = make_quality_plot("t", models).split("</figure>")[:2]
    for each in (plot, magnified):
        small, large = re.findall(r'<circle class="point" cx="([0-9.]+)" cy="([0-9.]+)"', each)
        assert float(small[0]) < float(large[0])
        assert float(small[1]) > float(large[1])
    assert "base model: 10.0%" in plot
    assert "base model" not in magnified


def test_whiskers_below_a_magnified_axis_and_single_files_are_drawn() -> None:
    assert make_quality_plot("t", [_make_model("", 0, 10)]) == ""
    assert make_quality_plot("t", [_make_model("Q8_0", 1, 0)]).count("<figure>") == 1
    same = [_make_model("Q8_0", 1000, 100), _make_model("Q4_0", 1000, 100)]
    assert make_quality_plot("t", same).count("<circle") == 4


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [(999, "999 B"), (1000, "1 kB"), (668_352, "668 kB"), (14_334_446_752, "14.3 GB")],
)
def test_sizes_are_short(size_bytes: int, told: str) -> None:
    assert format_size(size_bytes) == told
