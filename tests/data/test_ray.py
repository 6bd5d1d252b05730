"""The function that makes the data set here gives the same rows on a cluster: Ray's, on this host.

Ray is no part of the image: it lies in an environment of its own, which its workers see besides.
"""

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.data.partition import PART_SCHEMA, Plan, list_parts, render_part
from pipeline.data.style import Style
from pipeline.engine.environment import read_envs_dir
from tests import locked
from tests.data.blocks import render_block
from tests.data.canonical import assistant, chat, user, write_canonical
from tests.tiny_text import write_tokenizer

pytestmark = pytest.mark.train

ROWS = 60


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield Ray with a cluster of one node and two cores, on the loopback address."""
    packages = str(locked.find_packages("ray", read_envs_dir()))
    monkeypatch.setattr(sys, "path", [*sys.path, packages])
    # Of the workers, which are processes of their own.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), packages]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    library: Any = importlib.import_module("ray")
    importlib.import_module("ray.data")
    # Its sockets' paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        library.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        yield library
        library.shutdown()


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_makes_the_same_rows(tmp_path: Path, ray: Any) -> None:
    write_tokenizer(tmp_path / "text")
    rows = [
        chat(user(f"{n}+{n}?"), assistant(str(n + n), "+" * n), row_id=f"r{n}") for n in range(ROWS)
    ]
    write_canonical(tmp_path / "train.jsonl", rows)
    plan = Plan(text=tmp_path / "text", style=Style(), sequence_length=80, too_long="drop")
    parts = list_parts(tmp_path / "train.jsonl", part_bytes=1000)
    assert len(parts) > 4
    here = pa.Table.from_batches([batch for part in parts for batch in render_part(part, plan)])
    assert 0 < here.column("dropped").null_count < ROWS

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    items = [vars(part) | {"path": str(part.path)} for part in parts]
    mapped = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        render_block, fn_kwargs={"plan": plan}, batch_size=1, batch_format="pyarrow"
    )
    there = pa.concat_tables(ray.get(mapped.to_arrow_refs()))
    assert there.cast(PART_SCHEMA).equals(here)
