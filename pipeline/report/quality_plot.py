"""Models -> SVG: accuracy against the size of the file. Standard library alone.

Each file is a dot with its 95 % interval; what has no file, the base and the model before export,
is a line across. The scale of size is logarithmic, for the types of one model span a factor of ten.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.report.quality import Model

STYLE = """\
.point { fill: var(--bar); }
.whisker { stroke: var(--bar); stroke-width: 1.6; }
.leader { fill: none; stroke: var(--soft); stroke-opacity: .6; }
.level { stroke: var(--soft); stroke-dasharray: 5 4; }
svg .strong { fill: var(--ink); font-weight: 600; }
"""

_WIDTH = 400
_LEFT, _RIGHT, _TOP, _BASE = 48, 384, 16, 200
_TICKS = 4
_SIDE = 0.1  # of the span of sizes is left free at each side
# Names below the axis stand in two lines where there is room, else upright, and then so far apart.
_LYING, _UPRIGHT = 84, 13
_HEIGHT_LYING, _HEIGHT_UPRIGHT = _BASE + 38, _BASE + 124


def make_quality_plot(title: str, models: Sequence[Model]) -> str:
    """Return the plot from 0 to 100 %, and beside it the files alone, magnified; "" when no file
    was asked."""
    files = sorted((each for each in models if each.size_bytes), key=lambda each: each.size_bytes)
    if not files:
        return ""
    others = [each for each in models if not each.size_bytes]
    lowest = min(each.interval[0] for each in files)
    step = next((each for each in (0.01, 0.02, 0.05, 0.1, 0.2) if 1 - lowest <= 4 * each), 0.25)
    plots = [_draw(title, files, others, _Axis(step=0.25))]
    if step < 0.25:
        plots.append(_draw(f"{title}, the files alone, magnified", files, [], _Axis(step=step)))
    return "".join(plots)


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Shares from four steps below 1 up to 1."""

    step: float

    @property
    def ticks(self) -> list[float]:
        """The shares that have a line."""
        return [1 - n * self.step for n in range(_TICKS + 1)]

    def y(self, share: float) -> float:
        """Return where a share stands; what is too low stands at the bottom."""
        low = 1 - _TICKS * self.step
        return _BASE - (_BASE - _TOP) * max(0.0, share - low) / (1 - low)


def _draw(title: str, files: Sequence[Model], others: Sequence[Model], axis: _Axis) -> str:
    places = _find_places(files)
    is_lying = all(b - a >= _LYING for a, b in itertools.pairwise(places))
    parts = [*_draw_axis(axis)]
    for each in others:
        parts += _draw_level(each, axis)
    for each, x in zip(files, places, strict=True):
        parts.append(_draw_file(each, x, axis))
    parts += _draw_lying(files, places) if is_lying else _draw_upright(files, places)
    height = _HEIGHT_LYING if is_lying else _HEIGHT_UPRIGHT
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def format_size(size_bytes: int) -> str:
    """Return three digits and a unit of powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.3g} {unit}"
    return f"{size_bytes} B"


def _find_places(files: Sequence[Model]) -> list[float]:
    logs = [math.log(each.size_bytes) for each in files]
    span = (logs[-1] - logs[0]) or 1.0
    low = logs[0] - _SIDE * span if logs[-1] > logs[0] else logs[0] - 0.5
    width = span * (1 + 2 * _SIDE) if logs[-1] > logs[0] else 1.0
    return [_LEFT + (_RIGHT - _LEFT) * (each - low) / width for each in logs]


def _draw_axis(axis: _Axis) -> Iterator[str]:
    for share in axis.ticks:
        y = axis.y(share)
        yield f'<path class="axis" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>'


def _draw_lying(files: Sequence[Model], places: Sequence[float]) -> Iterator[str]:
    for each, x in zip(files, places, strict=True):
        yield f'<path class="axis" d="M{x:.1f} {_BASE}v5"/>'
        for y, kind, told in (
            (18, ' class="strong"', escape(each.type)),
            (33, "", format_size(each.size_bytes)),
        ):
            at = f'x="{x:.1f}" y="{_BASE + y}"'
            yield f'<text{kind} {at} text-anchor="middle">{told}</text>'


def _draw_upright(files: Sequence[Model], places: Sequence[float]) -> Iterator[str]:
    for each, x, label in zip(files, places, spread(places), strict=True):
        top = _BASE + 14
        yield f'<path class="leader" d="M{x:.1f} {_BASE}L{label:.1f} {top - 3}"/>'
        yield (
            f'<text transform="translate({label + 4:.1f} {top}) rotate(-90)" text-anchor="end">'
            f'<tspan class="strong">{escape(each.type)}</tspan> {format_size(each.size_bytes)}'
            "</text>"
        )


def spread(places: Sequence[float]) -> list[float]:
    """Return places in the same order, so far apart that upright names do not touch; of more than
    fit they are even."""
    apart = min(_UPRIGHT, (_RIGHT - _LEFT) / max(1, len(places)))
    found = list(places)
    for n in range(1, len(found)):
        found[n] = max(found[n], found[n - 1] + apart)
    limit = float(_RIGHT)
    for n in reversed(range(len(found))):
        found[n] = min(found[n], limit)
        limit = found[n] - apart
    return found


def _draw_level(model: Model, axis: _Axis) -> Iterator[str]:
    y = axis.y(model.accuracy)
    # Above its line, or below where there is no room above.
    place = y - 5 if y > (_TOP + _BASE) / 2 else y + 14
    told = escape(f"{model.title}: {model.accuracy:.1%}")
    yield f'<path class="level" d="M{_LEFT} {y:.1f}H{_RIGHT}"><title>{told}</title></path>'
    yield f'<text x="{_LEFT + 4}" y="{place:.1f}">{told}</text>'


def _draw_file(model: Model, x: float, axis: _Axis) -> str:
    low, high = model.interval
    told = f"{model.type}: {model.accuracy:.1%} ({low:.1%} to {high:.1%}), {model.size_bytes:,}"
    below, above = axis.y(low), axis.y(high)
    return (
        f"<g><title>{escape(told)} bytes</title>"
        f'<path class="whisker" d="M{x:.1f} {below:.1f}V{above:.1f}'
        f'M{x - 4:.1f} {below:.1f}h8M{x - 4:.1f} {above:.1f}h8"/>'
        f'<circle class="point" cx="{x:.1f}" cy="{axis.y(model.accuracy):.1f}" r="4.5"/></g>'
    )
