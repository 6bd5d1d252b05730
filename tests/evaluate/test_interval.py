"""Intervals and comparisons against published values."""

import pytest

from pipeline.evaluate.interval import compare, make_interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilsons_interval(correct: int, total: int, low: float, high: float) -> None:
    assert make_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_nothing_asked_says_nothing() -> None:
    assert make_interval(0, 0) == (0.0, 1.0)


def test_pairs_are_compared_problem_by_problem() -> None:
    first, second = [True] * 10 + [False] * 2, [False] * 8 + [True] * 4
    assert compare(first, second) == {"only_first": 8, "only_second": 2, "p_value": 0.109375}
    assert compare([True], [True])["p_value"] == 1.0
    with pytest.raises(ValueError, match="zip"):
        compare([True], [])
