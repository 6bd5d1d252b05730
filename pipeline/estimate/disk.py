"""The artifacts still to be made -> what the disk must hold, at the end and at most.

Artifacts are built in the recipe's order. Without `gc` each stays; with `gc --intermediates` after
each one, what nothing still to be made needs goes at once, but for what was asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Item:
    """One artifact to be made: its bytes, those that it takes besides while it is made, and the
    names of what it is made from."""

    name: str
    size_bytes: int
    scratch_bytes: int = 0
    inputs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class DiskUse:
    """Bytes that a build adds to the disk: at the end, and at most; and the same while
    intermediates go at once."""

    total_bytes: int
    peak_bytes: int
    peak_gc_bytes: int
    end_gc_bytes: int


def sum_disk(items: Sequence[Item], wanted: Sequence[str]) -> DiskUse:
    """Return what making the items, in their order, takes; `wanted` stays whatever happens."""
    sizes: Mapping[str, int] = {item.name: item.size_bytes for item in items}
    last_use = {name: at for at, item in enumerate(items) for name in item.inputs if name in sizes}
    made = peak = held = peak_gc = 0
    for at, item in enumerate(items):
        made += item.size_bytes
        held += item.size_bytes
        peak = max(peak, made + item.scratch_bytes)
        peak_gc = max(peak_gc, held + item.scratch_bytes)
        done = {each for each in (*item.inputs, item.name) if last_use.get(each, at) <= at}
        held -= sum(sizes[each] for each in done if each in sizes and each not in wanted)
    return DiskUse(total_bytes=made, peak_bytes=peak, peak_gc_bytes=peak_gc, end_gc_bytes=held)
