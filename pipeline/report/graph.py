"""The plan -> a picture of its artifacts, each with its size and whether it is cached: SVG.

Every line runs from left to right, from what an artifact is made from. No script, no font and no
image from elsewhere; light or dark as the viewer is.
"""

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pipeline.report.graph_layout import HEIGHT, WIDTH, Point, arrange

_MARGIN, _HEADER = 28, 78
_NARROWEST = 420
_NAME_CHARACTERS = 22

# Colours that differ in lightness too; the state also stands in words.
_STYLE = """\
  <style>
    svg { color-scheme: light dark; --page: #ffffff; --ink: #1c2330; --quiet: #5b6472;
      --line: #9aa4b2; --cached: #e3f4e8; --cached-line: #2f8f4e; --build: #fff3d6;
      --build-line: #b7791f; }
    @media (prefers-color-scheme: dark) {
      svg { --page: #14181f; --ink: #e8ecf2; --quiet: #a3adba; --line: #5c6675;
        --cached: #16301f; --cached-line: #5cc983; --build: #3a2d10; --build-line: #e7b24c; }
    }
    .page { fill: var(--page); }
    text { fill: var(--ink); font-family: system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
      font-size: 13px; }
    .title { font-size: 18px; font-weight: 600; }
    .name { font-weight: 600; }
    .quiet { fill: var(--quiet); font-size: 12px; }
    .edge { fill: none; stroke: var(--line); stroke-width: 1.5; }
    .head { fill: var(--line); }
    .cached rect { fill: var(--cached); stroke: var(--cached-line); stroke-width: 1.5; }
    .build rect { fill: var(--build); stroke: var(--build-line); stroke-width: 1.5;
      stroke-dasharray: 6 3; }
  </style>
"""
_ARROW = """\
  <defs>
    <marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"
      orient="auto"><path class="head" d="M0 0 L8 4 L0 8 z"/></marker>
  </defs>
"""
_UNITS = ("B", "kB", "MB", "GB", "TB")


def format_graph(plan: Mapping[str, Any]) -> str:
    """Return the SVG of a plan's artifacts."""
    artifacts = {each["name"]: each for each in plan["artifacts"]}
    layout = arrange({name: each["inputs"] for name, each in artifacts.items()})
    width = 2 * _MARGIN + max(layout.width, _NARROWEST)
    height = _HEADER + layout.height + _MARGIN
    title = f"What {plan['recipe']} builds"
    drawn = [
        *(_draw_lane(start, end) for start, end in layout.lanes),
        *(_draw_line(start, end, at_box=at_box) for start, end, at_box in layout.lines),
        *(_draw_box(artifacts[name], corner) for name, corner in layout.boxes.items()),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" role="img" aria-label={quoteattr(title)}>\n'
        f"  <title>{escape(title)}</title>\n{_STYLE}{_ARROW}"
        f'  <rect class="page" width="{width:g}" height="{height:g}"/>\n'
        f'  <text class="title" x="{_MARGIN}" y="36">{escape(title)}</text>\n'
        f'  <text class="quiet" x="{_MARGIN}" y="57">{escape(_summarize(plan))}</text>\n'
        f'  <g transform="translate({_MARGIN} {_HEADER})">\n{"".join(drawn)}  </g>\n'
        "</svg>\n"
    )


def _summarize(plan: Mapping[str, Any]) -> str:
    artifacts, disk = plan["artifacts"], plan["disk"]
    waiting = sum(each["state"] == "build" for each in artifacts)
    if not waiting:
        return f"all {len(artifacts)} artifacts are cached"
    return (
        f"{waiting} of {len(artifacts)} artifacts to build; {format_size(disk['needed_bytes'])} of"
        f" disk needed, {format_size(disk['free_bytes'])} free"
    )


def _draw_lane(start: Point, end: Point) -> str:
    (x1, y1), (x2, _) = start, end
    return f'    <path class="edge" d="M{x1:g} {y1:g} H{x2:g}"/>\n'


def _draw_line(start: Point, end: Point, *, at_box: bool) -> str:
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    arrow = ' marker-end="url(#arrow)"' if at_box else ""
    return (
        f'    <path class="edge"{arrow} d="M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g}'
        f' {x2:g} {y2:g}"/>\n'
    )


def _draw_box(each: Mapping[str, Any], corner: Point) -> str:
    x, y = corner
    key = each["key"] or "not known yet"
    about = f"{each['name']}: {each['why']}\n{each['bytes']:,} bytes\nkey {key}"
    said = "cached" if each["state"] == "cached" else "to build"
    size = f"{format_size(each['bytes'])} · " if each["bytes"] else ""
    return (
        f'    <g class="{each["state"]}"><title>{escape(about)}</title>'
        f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text class="name" x="{x + 14:g}" y="{y + 27:g}">{escape(_shorten(each["name"]))}</text>'
        f'<text class="quiet" x="{x + 14:g}" y="{y + 47:g}">{escape(size + said)}</text>'
        "</g>\n"
    )


def _shorten(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"


def format_size(size_bytes: int) -> str:
    """Return the size in three digits and a unit of thousands: 14.3 GB."""
    size, unit = float(size_bytes), 0
    while size >= 999.5 and unit < len(_UNITS) - 1:
        size, unit = size / 1000, unit + 1
    digits = 0 if unit == 0 or size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{size:.{digits}f} {_UNITS[unit]}"
