"""What a worker of a cluster runs: a block of parts -> the tables of their rows."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.data.partition import Part, Plan, render_part


def render_block(parts: pa.Table, plan: Plan) -> Iterator[pa.Table]:
    """Yield each batch of each part, whose fields the columns are."""
    for values in parts.to_pylist():
        part = Part(**{**values, "path": Path(values["path"])})
        for batch in render_part(part, plan):
            yield pa.Table.from_batches([batch])
