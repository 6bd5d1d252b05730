"""Artifacts and what they were made from -> SVG, from the sources at the top to the results.

A layer holds what can be made once the layers above it are there. Three boxes stand side by side,
so that their names can be read on a phone; a wider layer takes several lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.artifact.rule import Key
from pipeline.artifact.store import Artifact
from pipeline.report.quality_plot import format_size

STYLE = """\
.box { fill: var(--card); stroke: var(--line); }
.result { stroke: var(--bar); stroke-width: 1.6; }
.graph svg .name { fill: var(--ink); font-size: 10.5px; font-weight: 600; }
.edge { fill: none; stroke: var(--soft); stroke-opacity: .45; }
"""

_WIDTH = 400
_BESIDE = 3
_BOX, _HIGH, _STEP = 126, 38, 66
_CUT = 19  # characters of a name


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The middle of a box's upper edge."""

    x: float
    y: float


def make_graph(title: str, artifacts: Sequence[Artifact]) -> str:
    """Return the graph of the artifacts; inputs that are not among them are left out."""
    by_key = {each.key: each.name for each in artifacts}
    inputs = {
        each.name: [by_key[key] for key in _list_keys(each) if key in by_key] for each in artifacts
    }
    places = _place(find_layers(inputs), inputs)
    used = {name for names in inputs.values() for name in names}
    edges = (_draw_edge(places[above], places[name]) for name in inputs for above in inputs[name])
    boxes = (_draw_box(each, places[each.name], each.name not in used) for each in artifacts)
    height = max((place.y for place in places.values()), default=0) + _HIGH + 2
    return (
        f'<figure class="graph"><svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img"'
        f' aria-label="{escape(title)}">{"".join(edges)}{"".join(boxes)}</svg></figure>'
    )


def _list_keys(artifact: Artifact) -> list[Key]:
    return [key for _, key in sorted(artifact.manifest.document["inputs"].items())]


def find_layers(inputs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return the names by the length of their longest way from a source."""
    depths: dict[str, int] = {}

    def measure(name: str) -> int:
        if name not in depths:
            depths[name] = 1 + max(map(measure, inputs[name]), default=-1)
        return depths[name]

    for name in inputs:
        measure(name)
    layers: list[list[str]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for name in inputs:
        layers[depths[name]].append(name)
    return layers


def _place(
    layers: Sequence[Sequence[str]], inputs: Mapping[str, Sequence[str]]
) -> dict[str, _Place]:
    """Return where each box stands; one stands below what it was made from, if there is room."""
    places: dict[str, _Place] = {}
    y = 1.0
    for layer in layers:
        middles = {name: [places[above].x for above in inputs[name]] for name in layer}
        ordered = sorted(layer, key=lambda name: sum(middles[name]) / max(1, len(middles[name])))
        for start in range(0, len(ordered), _BESIDE):
            line = ordered[start : start + _BESIDE]
            for number, name in enumerate(line):
                places[name] = _Place(x=_WIDTH * (2 * number + 1) / (2 * len(line)), y=y)
            y += _STEP
    return places


def _draw_edge(above: _Place, below: _Place) -> str:
    start, middle = above.y + _HIGH, (above.y + _HIGH + below.y) / 2
    return (
        f'<path class="edge" d="M{above.x:.1f} {start:.1f}C{above.x:.1f} {middle:.1f}'
        f' {below.x:.1f} {middle:.1f} {below.x:.1f} {below.y:.1f}"/>'
    )


def _draw_box(artifact: Artifact, place: _Place, is_result: bool) -> str:
    return "".join(_list_parts(artifact, place, is_result))


def _list_parts(artifact: Artifact, place: _Place, is_result: bool) -> Iterator[str]:
    name = artifact.name
    cut = name if len(name) <= _CUT else f"{name[: _CUT - 1]}…"
    size = format_size(artifact.manifest.size_bytes)
    took = f" · {artifact.seconds:,.1f} s" if artifact.seconds is not None else ""
    yield f"<g><title>{escape(name)}: key {artifact.key}</title>"
    yield (
        f'<rect class="box{" result" if is_result else ""}" x="{place.x - _BOX / 2:.1f}"'
        f' y="{place.y:.1f}" width="{_BOX}" height="{_HIGH}" rx="6"/>'
    )
    yield (
        f'<text class="name" x="{place.x:.1f}" y="{place.y + 16:.1f}" text-anchor="middle">'
        f"{escape(cut)}</text>"
    )
    yield (
        f'<text x="{place.x:.1f}" y="{place.y + 31:.1f}" text-anchor="middle">{size}{took}</text>'
        "</g>"
    )
