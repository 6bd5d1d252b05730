"""Points -> SVG for a page: one or more curves over the steps. Standard library alone.

Sizes are in units of a plot that is 400 wide and scales with the page; colours and dashes are the
page's own, by class (`STYLE`). What is not finite is left out. Every text is escaped.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

STYLE = """\
.wave { fill: none; stroke: var(--bar); stroke-width: 1.8; stroke-linejoin: round; }
.wave.faint { opacity: .35; stroke-width: 1; }
.wave.second { stroke: var(--second); stroke-dasharray: 6 3; }
.dot { fill: var(--second); }
.limit { stroke: var(--soft); stroke-dasharray: 2 4; }
.key {
  display: inline-block; margin-right: 1rem; font-weight: 400; font-size: .85rem;
  color: var(--soft);
}
.key::before {
  content: ""; display: inline-block; width: 1.4rem; margin-right: .4rem; vertical-align: middle;
  border-top: 2px solid var(--bar);
}
.key.faint::before { opacity: .35; }
.key.second::before { border-top: 2px dashed var(--second); }
:root { --second: #b4552d; }
@media (prefers-color-scheme: dark) { :root { --second: #f0a27a; } }
"""

_WIDTH, _HEIGHT = 400, 190
_LEFT, _RIGHT, _TOP, _BASE = 52, 392, 10, 164
_TICKS = 4
_MOST_POINTS = 300  # of a curve; more are drawn by their extremes
_FEW_POINTS = 60  # of a dotted curve

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Points in the order of x. `look` is "", "faint" or "second"; `dots` marks each point. One
    without a name has no key: the plot's title is enough."""

    name: str
    points: Sequence[Point]
    look: str = ""
    dots: bool = False


def make_curves(
    title: str, curves: Sequence[Curve], unit: str = "", *, limit: float | None = None
) -> str:
    """Return the plot; a horizontal line stands at `limit` when the curves reach so far."""
    drawn = [(curve, thin_out([p for p in curve.points if _is_finite(p)])) for curve in curves]
    points = [point for _, shown in drawn for point in shown]
    keys = "".join(
        f'<span class="{_class("key", curve)}">{escape(curve.name)}</span>'
        for curve, shown in drawn
        if shown and curve.name
    )
    head = f"<figure><figcaption>{escape(title)}<br>{keys}</figcaption>"
    view = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    if not points:
        return f'{head}{view}<text x="{_LEFT}" y="80">nothing yet</text></svg></figure>'
    scale = _Scale.fit(points)
    parts = [*_draw_axes(scale, unit)]
    if limit is not None and scale.low <= limit <= scale.high:
        parts.append(f'<path class="limit" d="M{_LEFT} {scale.y(limit):.1f}H{_RIGHT}"/>')
    for curve, shown in drawn:
        parts += _draw_curve(curve, shown, scale)
    return f"{head}{view}{''.join(parts)}</svg></figure>"


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """Values to places in the plot; `step` lies between two ticks of the vertical axis."""

    first: float
    last: float
    low: float
    high: float
    step: float

    @classmethod
    def fit(cls, points: Sequence[Point]) -> "_Scale":
        xs, ys = zip(*points, strict=True)
        low, high = min(ys), max(ys)
        step = find_tick_step(low, high)
        return cls(
            first=min(xs),
            last=max(xs),
            low=math.floor(low / step) * step,
            high=math.ceil(high / step) * step or step,
            step=step,
        )

    def x(self, value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (value - self.first) / ((self.last - self.first) or 1)

    def y(self, value: float) -> float:
        return _BASE - (_BASE - _TOP) * (value - self.low) / ((self.high - self.low) or 1)


def find_tick_step(low: float, high: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about four ticks lie between the two."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    return next(n * power for n in (1, 2, 5, 10) if span <= n * power * _TICKS)


def thin_out(points: Sequence[Point]) -> list[Point]:
    """Return about 300 points at most: the ends of a longer curve and of each of its stretches the
    lowest and the highest, so that no spike is lost."""
    if len(points) <= _MOST_POINTS:
        return list(points)
    width = math.ceil(2 * len(points) / _MOST_POINTS)
    kept: list[Point] = []
    for start in range(0, len(points), width):
        part = points[start : start + width]
        extremes = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        ends = {points[0], points[-1]}.intersection(part)
        kept += sorted(extremes | ends)
    return kept


def smooth(points: Sequence[Point], weight: float = 0.9) -> list[Point]:
    """Return the exponential moving average, of which the start is not pulled towards 0."""
    average, total, smoothed = 0.0, 0.0, []
    for x, y in points:
        if math.isfinite(y):
            average = weight * average + (1 - weight) * y
            total = weight * total + (1 - weight)
            smoothed.append((x, average / total))
    return smoothed


def _is_finite(point: Point) -> bool:
    return math.isfinite(point[0]) and math.isfinite(point[1])


def _draw_axes(scale: _Scale, unit: str) -> Iterator[str]:
    for n in range(round((scale.high - scale.low) / scale.step) + 1):
        value = scale.low + n * scale.step
        y = scale.y(value)
        label = escape(f"{_format(value, scale.step)}{unit}")
        yield f'<path class="axis" d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    for value, anchor in ((scale.first, "start"), (scale.last, "end")):
        x = scale.x(value) if scale.last > scale.first or anchor == "start" else _RIGHT
        yield f'<text x="{x:.1f}" y="182" text-anchor="{anchor}">step {value:,.0f}</text>'


def _format(value: float, step: float) -> str:
    if value and (step < 1e-3 or abs(value) >= 1e5):
        return f"{value:.3g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step)))}f}" if value else "0"


def _draw_curve(curve: Curve, shown: Sequence[Point], scale: _Scale) -> Iterator[str]:
    if len(shown) > 1:
        places = "L".join(f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in shown)
        yield f'<path class="{_class("wave", curve)}" d="M{places}"/>'
    if len(shown) == 1 or (curve.dots and len(shown) <= _FEW_POINTS):
        for x, y in shown:
            told = escape(f"{curve.name}, step {x:,.0f}: {y:.4g}")
            at = f'cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}"'
            yield f'<circle class="dot" {at} r="3"><title>{told}</title></circle>'


def _class(kind: str, curve: Curve) -> str:
    return f"{kind} {curve.look}" if curve.look else kind
