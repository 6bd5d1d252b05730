"""Counts -> SVG for a page: bars side by side, or bars with names. Standard library alone.

Sizes are in units of a plot that is 400 wide and scales with the page; colours are the page's own,
by class. Every text is escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _HEIGHT = 400, 150
_LEFT, _TOP, _BASE = 6, 22, 128
_ROW = 34
_LONGEST_NAME = 52
_MOST_NAMES = 12
_BINS = 40


def make_histogram(title: str, labels: Sequence[str], counts: Sequence[int], unit: str) -> str:
    """Return bars side by side; the first, middle and last have their label below."""
    highest = max([1, *counts])
    step = (_WIDTH - 2 * _LEFT) / max(1, len(counts))
    bars = []
    for n, (label, count) in enumerate(zip(labels, counts, strict=True)):
        height = (_BASE - _TOP) * count / highest
        # What is there at all must be seen.
        height = max(height, 1.5) if count else 0
        bars.append(
            f'<rect class="bar" x="{_LEFT + n * step:.1f}" y="{_BASE - height:.1f}"'
            f' width="{max(step - 1, 0.5):.1f}" height="{height:.1f}">'
            f"<title>{escape(label)}: {count:,} {escape(unit)}</title></rect>"
        )
    ends = {0: "start", len(labels) // 2: "middle", len(labels) - 1: "end"} if labels else {}
    for n, anchor in ends.items():
        at = _LEFT + step * (n + {"start": 0, "middle": 0.5, "end": 1}[anchor])
        text = escape(labels[n])
        bars.append(f'<text x="{at:.1f}" y="143" text-anchor="{anchor}">{text}</text>')
    line = f'<path class="axis" d="M{_LEFT} {_BASE}H{_WIDTH - _LEFT}"/>'
    top = f'<text x="{_LEFT}" y="14">highest: {highest:,} {escape(unit)}</text>'
    return _wrap(title, line + top + "".join(bars), _HEIGHT)


def make_bars(title: str, counts: Mapping[str, int], unit: str) -> str:
    """Return a bar for each name, the largest first; what is beyond a dozen is summed up."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ordered[:_MOST_NAMES]
    rest = ordered[_MOST_NAMES:]
    if rest:
        shown.append((f"{len(rest)} others", sum(count for _, count in rest)))
    total, highest = max(1, sum(counts.values())), max([1, *(count for _, count in shown)])
    parts = []
    for n, (name, count) in enumerate(shown):
        cut = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        width = max(1.5, (_WIDTH - 2 * _LEFT) * count / highest) if count else 0
        y = n * _ROW
        parts.append(
            f"<g><title>{escape(name)}</title>"
            f'<text x="{_LEFT}" y="{y + 13}">{escape(cut or "(none)")}</text>'
            f'<text x="{_WIDTH - _LEFT}" y="{y + 13}" text-anchor="end">'
            f"{count:,} ({count / total:.0%})</text>"
            f'<rect class="bar" x="{_LEFT}" y="{y + 18}" width="{width:.1f}" height="9"/></g>'
        )
    if not shown:
        parts.append(f'<text x="{_LEFT}" y="13">no {escape(unit)}</text>')
    return _wrap(title, "".join(parts), max(1, len(shown)) * _ROW)


def _wrap(title: str, content: str, height: int) -> str:
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"{content}</svg></figure>"
    )


def make_bins(rows_of_length: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return labels and counts of lengths in at most 40 bins, all of one round width."""
    longest = max(1, len(rows_of_length) - 1)
    width = next(
        size for power in range(12) for n in (1, 2, 5) if longest // (size := n * 10**power) < _BINS
    )
    starts = range(0, longest + 1, width)
    labels = [
        f"{start:,} to {start + width - 1:,}" if width > 1 else str(start) for start in starts
    ]
    return labels, [int(sum(rows_of_length[start : start + width])) for start in starts]
