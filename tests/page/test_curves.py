"""Curves lie where their numbers say, keep their extremes, and take any text and any number."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.page.curves import Curve, find_tick_step, make_curves, smooth, thin_out

_NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def _read_path(svg: str) -> list[tuple[float, float]]:
    found = re.search(r'class="wave[^"]*" d="M([^"]*)"', svg)
    assert found
    pairs = (pair.split() for pair in found[1].split("L"))
    return [(float(x), float(y)) for x, y in pairs]


def test_points_lie_on_a_scale_of_round_numbers() -> None:
    svg = make_curves("Loss & more", [Curve(name="<b>", points=[(0, 0.0), (50, 2.0), (100, 4.0)])])
    assert "Loss &amp; more" in svg
    assert "&lt;b&gt;" in svg
    (x0, y0), (x1, y1), (x2, y2) = _read_path(svg)
    assert x1 - x0 == x2 - x1 > 0
    assert y0 - y1 == pytest.approx(y1 - y2) != 0
    labels = re.findall(r'text-anchor="end">([^<]*)<', svg)
    assert labels[:5] == ["0", "1", "2", "3", "4"]
    assert ">step 0<" in svg
    assert ">step 100<" in svg


def test_a_limit_is_drawn_where_the_curve_reaches_it() -> None:
    reached = make_curves("Norm", [Curve(name="", points=[(1, 0.5), (2, 1.5)])], limit=1.0)
    assert 'class="limit"' in reached
    below = make_curves("Norm", [Curve(name="", points=[(1, 0.1), (2, 0.2)])], limit=1.0)
    assert 'class="limit"' not in below


def test_nothing_and_one_point() -> None:
    assert "nothing yet" in make_curves("Loss", [Curve(name="loss", points=[])])
    assert "nothing yet" in make_curves("Loss", [Curve(name="loss", points=[(1, math.nan)])])
    one = make_curves("Loss", [Curve(name="loss", points=[(7, 3.0)])])
    assert "<title>loss, step 7: 3</title>" in one


@given(st.lists(_NUMBERS, max_size=40))
def test_any_numbers_give_a_plot_of_finite_places(values: list[float]) -> None:
    svg = make_curves("Loss", [Curve(name="loss", points=list(enumerate(values)), dots=True)])
    places = re.findall(r'(?:d="M| cx="| cy="| y=")([-\w. +]+)', svg)
    assert all(math.isfinite(float(word)) for place in places for word in re.split("[LH ]", place))
    assert "nan" not in svg.replace("dominant", "")


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
def test_ticks_are_round_and_few(low: float, span: float) -> None:
    step = find_tick_step(low, low + span)
    assert step > 0
    digits = f"{step:e}"
    assert digits[0] in "125"
    assert set(digits[2:8]) == {"0"}
    assert (low + span - low) / step <= 4 * (1 + 1e-9)


def test_thinning_keeps_every_spike_and_the_order() -> None:
    points = [(float(n), 1.0) for n in range(5000)]
    points[1234], points[4000] = (1234.0, 99.0), (4000.0, -5.0)
    kept = thin_out(points)
    assert len(kept) <= 302
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)
    assert {(1234.0, 99.0), (4000.0, -5.0)} <= set(kept)


def test_the_average_begins_at_the_first_value_and_skips_what_is_no_number() -> None:
    smoothed = smooth([(1, 4.0), (2, math.nan), (3, 4.0), (4, 0.0)])
    assert [x for x, _ in smoothed] == [1, 3, 4]
    assert [y for _, y in smoothed[:2]] == pytest.approx([4.0, 4.0])
    assert 0 < smoothed[2][1] < 4
