"""A layout and the weights -> the tensor data of a GGUF, in slabs of rows over the cores.

Each worker reads a slab of the final weight, reorders its rows, quantizes them and writes them to
their place. Memory is bounded by workers x slab, whatever the size of a tensor: a slab has
`SLAB_ELEMENTS` elements or 32 rows, whichever is more, and costs about 16 bytes an element. The
bytes depend on neither the number of workers nor the slabs.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from pipeline.checkpoint.gguf_layout import Layout, Target
from pipeline.checkpoint.quantizer import quantize
from pipeline.checkpoint.weights import TextWeights
from pipeline.log import say

# Small enough for a core's cache, and for the allocator to keep the pages from slab to slab.
SLAB_ELEMENTS = 1 << 18

# With the flagship's widest rows each takes about 26 MB, as measured: so many stay below 512 MB
# beyond the imports, whatever the number of cores, and already outrun most disks.
MAX_WORKERS = 16

# `read_rows` gives the same bytes in any slab that starts at a multiple of this many rows.
SLAB_ROWS = 32

# Rows that a slab may read beyond its own, for an order that reaches further than it: two heads.
_SPREAD_ROWS = 1024

_EVERY_S = 5.0  # a line of progress


@dataclass(frozen=True, kw_only=True)
class _Slab:
    target: Target
    start: int
    stop: int


def stream(layout: Layout, weights: TextWeights, path: Path, workers: int) -> None:
    """Fill the file that the layout's header stands in.

    Raises StageError when a weight is not sane; OSError at once when the disk is too small.
    """
    # Each worker computes on its own; torch's threads would only wait for one another.
    torch.set_num_threads(1)
    progress = _Progress(sum(each.size_bytes for each in layout.targets))
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, layout.size_bytes)

        def write(slab: _Slab) -> None:
            data = memoryview(_make_bytes(slab, weights)).cast("B")
            offset = slab.target.offset + slab.start * slab.target.row_bytes
            while data:
                written = os.pwrite(file.fileno(), data, offset)
                data, offset = data[written:], offset + written
                progress.add(written)

        _run(write, list(_cut(layout)), workers)


def covers(layout: Layout) -> bool:
    """Whether every order of rows is so local that memory stays bounded."""
    return all(
        stop - start <= slab.stop - slab.start + _SPREAD_ROWS
        for slab in _cut(layout)
        for start, stop in [_find_span(slab)]
    )


def _cut(layout: Layout) -> Iterator[_Slab]:
    for target in layout.targets:
        count = target.size_bytes // target.row_bytes
        step = max(SLAB_ELEMENTS // target.shape[-1] // SLAB_ROWS, 1) * SLAB_ROWS
        for start in range(0, count, step):
            yield _Slab(target=target, start=start, stop=min(start + step, count))


def _find_span(slab: _Slab) -> tuple[int, int]:
    """Return the first and last + 1 row of the weight that the slab needs; the first is aligned."""
    if slab.target.rows is None:
        return slab.start, slab.stop
    rows = slab.target.rows[slab.start : slab.stop]
    return int(rows.min()) // SLAB_ROWS * SLAB_ROWS, int(rows.max()) + 1


def _make_bytes(slab: _Slab, weights: TextWeights) -> np.ndarray:
    """Return the slab's rows in the tensor's type."""
    target = slab.target
    if target.whole is not None:
        rows = target.whole.reshape(-1, target.shape[-1])[slab.start : slab.stop]
        return _encode(target, np.ascontiguousarray(rows))
    start, stop = _find_span(slab)
    weight = weights.read_rows(target.source, start, stop)
    if target.rows is not None:
        weight = weight[torch.from_numpy(target.rows[slab.start : slab.stop] - start)]
    if target.type == "BF16":
        return weight.contiguous().view(torch.uint8).numpy()
    return _encode(target, weight.float().numpy())


def _encode(target: Target, rows: np.ndarray) -> np.ndarray:
    return rows if target.type == "F32" else quantize(target.type, rows, target.importance)


def _run(write: Callable[[_Slab], None], slabs: list[_Slab], workers: int) -> None:
    """Write every slab; the first failure ends the work."""
    pool = ThreadPoolExecutor(workers)
    try:
        futures: list[Future[None]] = [pool.submit(write, slab) for slab in slabs]
        for each in wait(futures, return_when=FIRST_EXCEPTION).done:
            each.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Progress:
    """Counts bytes from many threads; says how many, how fast and how long still."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._done = 0
        self._started = self._said = time.monotonic()
        self._lock = Lock()

    def add(self, count: int) -> None:
        """Take note of bytes written."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._said > _EVERY_S:
                self._said = now
                self._say(now - self._started)

    def _say(self, elapsed_s: float) -> None:
        rate = self._done / elapsed_s
        left_s = (self._total - self._done) / rate
        percent = 100 * self._done // self._total
        say(
            f"  {percent} %  {self._done:,} of {self._total:,} bytes"
            f"  {rate / 1e6:,.1f} MB/s  {left_s:,.0f} s left"
        )
