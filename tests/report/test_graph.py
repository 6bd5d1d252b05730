"""The picture of a plan: well-formed, complete, and no line through a box."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifact.key import REPOSITORY
from pipeline.report.graph import format_graph, format_size
from pipeline.report.graph_layout import HEIGHT, WIDTH, arrange

_SVG = "{http://www.w3.org/2000/svg}"


def _make_plan(**inputs: list[str]) -> dict[str, Any]:
    artifacts = [
        {
            "name": name.replace("_", "-"),
            "key": None,
            "state": "cached" if name == "base" else "build",
            "why": 'never <built> & "so"',
            "bytes": 14_326_026_240 if name == "base" else 0,
            "inputs": made_from,
        }
        for name, made_from in inputs.items()
    ]
    disk = {"needed_bytes": 2_000_000, "free_bytes": 41_500_000_000}
    return {"recipe": '<mine> & "yours"', "artifacts": artifacts, "disk": disk}


def test_every_artifact_stands_there_with_size_and_state() -> None:
    plan = _make_plan(base=[], text=["base"], adapter=["text"], gguf=["base", "adapter"])
    root = ElementTree.fromstring(format_graph(plan))
    assert root.tag == f"{_SVG}svg"
    boxes = [each for each in root.iter(f"{_SVG}g") if each.get("class")]
    texts = [[text.text for text in box.iter(f"{_SVG}text")] for box in boxes]
    assert sorted(map(str, texts)) == sorted(
        map(
            str,
            [
                ["base", "14.3 GB · cached"],
                ["text", "to build"],
                ["adapter", "to build"],
                ["gguf", "to build"],
            ],
        )
    )
    assert {box.get("class") for box in boxes} == {"cached", "build"}
    assert root.findtext(f"{_SVG}title") == 'What <mine> & "yours" builds'
    arrows = [each for each in root.iter(f"{_SVG}path") if each.get("marker-end")]
    assert len(arrows) == 4


def test_nothing_comes_from_elsewhere_and_nothing_runs() -> None:
    text = format_graph(_make_plan(base=[]))
    assert "<script" not in text
    assert "href" not in text
    assert text.count("http") == 1  # the namespace


def test_an_empty_plan_is_a_picture() -> None:
    assert "all 0 artifacts are cached" in format_graph(_make_plan())


_GRAPHS = st.integers(0, 12).flatmap(
    lambda count: st.tuples(
        *(
            st.lists(st.integers(0, number - 1), unique=True, max_size=4) if number else st.just([])
            for number in range(count)
        )
    )
)


@given(_GRAPHS)
def test_boxes_are_apart_and_lines_lead_right_past_them(graph: tuple[list[int], ...]) -> None:
    inputs = {f"a{n}": [f"a{m}" for m in made_from] for n, made_from in enumerate(graph)}
    layout = arrange(inputs)
    assert layout.boxes.keys() == inputs.keys()
    corners = list(layout.boxes.values())
    for number, (x, y) in enumerate(corners):
        assert 0 <= x <= layout.width - WIDTH
        assert 0 <= y <= layout.height - HEIGHT
        for other_x, other_y in corners[:number]:
            assert x != other_x or abs(y - other_y) >= HEIGHT
    for name, made_from in inputs.items():
        assert all(layout.boxes[each][0] < layout.boxes[name][0] for each in made_from)
    # Lines run between columns alone; through a column only lanes do, beside its boxes.
    for (x1, _), (x2, _), _ in layout.lines:
        assert x1 < x2 < x1 + WIDTH
    for (x1, lane_y), (x2, _) in layout.lanes:
        assert x2 - x1 == WIDTH
        assert all(x != x1 or not y <= lane_y <= y + HEIGHT for x, y in corners)
    ends = [end for _, end, is_at_box in layout.lines if is_at_box]
    assert len(ends) == sum(map(len, inputs.values()))


@pytest.mark.parametrize(
    ("size_bytes", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_600, "1.00 MB"),
        (14_326_026_240, "14.3 GB"),
        (10**15, "1000 TB"),
    ],
)
def test_a_size_has_three_digits(size_bytes: int, told: str) -> None:
    assert format_size(size_bytes) == told


def _run(*argv: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", "plan", *argv]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_the_verb_draws_the_demonstration(tmp_path: Path) -> None:
    path = tmp_path / "plan.svg"
    told = _run("--store", str(tmp_path / "store"), "--graph", str(path), "gguf")
    assert told.returncode == 0, told.stderr
    assert "gguf-Q4_K_M" in told.stdout
    names = {text.text for text in ElementTree.parse(path).iter(f"{_SVG}text")}
    assert {"base", "text", "rows", "dataset", "adapter", "gguf-BF16", "gguf-Q8_0"} <= names


def test_a_picture_that_cannot_be_written_ends_with_2(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "plan.svg"
    told = _run("--store", str(tmp_path / "store"), "--graph", str(path))
    assert told.returncode == 2
    assert str(path) in told.stderr
    assert "next:" in told.stderr
