"""Names and what each is made from -> boxes in columns, and lines that cross no box.

Each thing stands one column right of the last that it is made from. A line over several columns
runs through those between in a lane of its own, one per start, from which it branches off.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 200, 64
_ACROSS, _DOWN = 76, 24
_LANE = 6

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The upper left corner of each box, the lines as points from left to right, whether each ends
    at a box, and the size of all."""

    boxes: Mapping[str, Point]
    lines: Sequence[tuple[Point, Point, bool]]
    lanes: Sequence[tuple[Point, Point]]
    width: float
    height: float


@dataclass(frozen=True)
class _Cell:
    """A place in a column: the box of a name, or the lane of what begins there."""

    name: str
    is_lane: bool = False

    @property
    def height(self) -> int:
        return _LANE if self.is_lane else HEIGHT


def arrange(inputs: Mapping[str, Sequence[str]]) -> Layout:
    """Return the layout of things, each after those that it is made from (`inputs`)."""
    level: dict[str, int] = {}
    for name, made_from in inputs.items():
        level[name] = 1 + max((level[each] for each in made_from), default=-1)
    columns = _fill_columns(inputs, level)
    _sort_columns(columns, inputs)
    height = max((_measure(column) for column in columns), default=0.0)
    middles = _find_middles(columns, height)
    return Layout(
        boxes={
            cell.name: (_left(number), middles[number, cell] - HEIGHT / 2)
            for number, column in enumerate(columns)
            for cell in column
            if not cell.is_lane
        },
        lines=_draw_lines(inputs, level, columns, middles),
        lanes=[
            ((_left(number), middle), (_left(number) + WIDTH, middle))
            for (number, cell), middle in middles.items()
            if cell.is_lane
        ],
        width=_left(len(columns)) - _ACROSS if columns else 0.0,
        height=height,
    )


def _left(column: int) -> float:
    return float(column * (WIDTH + _ACROSS))


def _fill_columns(
    inputs: Mapping[str, Sequence[str]], level: Mapping[str, int]
) -> list[list[_Cell]]:
    columns: list[list[_Cell]] = [[] for _ in range(1 + max(level.values(), default=-1))]
    for name in inputs:
        columns[level[name]].append(_Cell(name))
        reach = max((level[each] for each in inputs if name in inputs[each]), default=level[name])
        for number in range(level[name] + 1, reach):
            columns[number].append(_Cell(name, is_lane=True))
    return columns


def _sort_columns(columns: Sequence[list[_Cell]], inputs: Mapping[str, Sequence[str]]) -> None:
    """Order each column by where what leads to its cells stands, so that few lines cross."""
    for number in range(1, len(columns)):
        before = columns[number - 1]
        rows = {cell: row - (len(before) - 1) / 2 for row, cell in enumerate(before)}
        columns[number].sort(key=lambda cell: _average(_list_sources(cell, inputs), rows))


def _average(sources: Sequence[str], rows: Mapping[_Cell, float]) -> float:
    found = [row for cell, row in rows.items() if cell.name in sources]
    return sum(found) / len(found) if found else 0.0


def _list_sources(cell: _Cell, inputs: Mapping[str, Sequence[str]]) -> Sequence[str]:
    return (cell.name,) if cell.is_lane else inputs[cell.name]


def _measure(column: Sequence[_Cell]) -> float:
    return float(sum(cell.height for cell in column) + _DOWN * (len(column) - 1))


def _find_middles(
    columns: Sequence[Sequence[_Cell]], height: float
) -> dict[tuple[int, _Cell], float]:
    """Return how far down the middle of each cell is; every column is centred."""
    middles = {}
    for number, column in enumerate(columns):
        top = (height - _measure(column)) / 2
        for cell in column:
            middles[number, cell] = top + cell.height / 2
            top += cell.height + _DOWN
    return middles


def _draw_lines(
    inputs: Mapping[str, Sequence[str]],
    level: Mapping[str, int],
    columns: Sequence[Sequence[_Cell]],
    middles: Mapping[tuple[int, _Cell], float],
) -> list[tuple[Point, Point, bool]]:
    """Return a line into each cell from each of its sources, or from their lanes, in the column
    before."""
    lines = []
    for number, column in enumerate(columns[1:], start=1):
        for cell in column:
            for name in _list_sources(cell, inputs):
                start = _Cell(name, is_lane=level[name] < number - 1)
                lines.append(
                    (
                        (_left(number - 1) + WIDTH, middles[number - 1, start]),
                        (_left(number), middles[number, cell]),
                        not cell.is_lane,
                    )
                )
    return lines
