"""The page of a recipe: what is sealed, all of it, and nothing that fetches or runs."""

import base64
import hashlib
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.report.recipe_page import make_page
from pipeline.report.recipe_text import hide_places
from pipeline.verbs.report import make_subject
from tests.export.sealed_recipe import EVIL, seal_recipe


class Page(HTMLParser):
    """Collects elements, attributes, the style and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.style = ""
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "style":
            self.style += data
        else:
            self.text += data


def _make(folder: Path, **files: dict[str, bytes]) -> str:
    named = {name.replace("_", "-"): held for name, held in files.items()}
    project, path = seal_recipe(folder, named)
    steps = project.make_steps([rule.name for rule in project.rules])
    sealed = {each.rule.name: each.artifact for each in steps if each.artifact}
    return make_page(make_subject(project, path, sealed))


def test_it_tells_quality_training_masks_answers_and_making(tmp_path: Path) -> None:
    page = Page(_make(tmp_path))
    for told in (
        *("My model", "0.0% → 75.0%", "75.0%", "25.0% to 75.0%", "3 of 4", "GGUF Q4_K_M"),
        *(
            "5.5 → 0.25",
            "after 8 steps",
            "3 at first, 0.375 now",
            "Depth of the reasoning, GGUF Q4_K_M",
        ),
        *("Row r1: 3 tokens, 1 supervised", "On 1 of 4 problems", "problem 2", "solution 2"),
        *("answers-checkpoint", "dataset-report", "Every input that an artifact names"),
    ):
        assert told in page.text, told
    assert ("class", "taught") in page.attributes
    assert page.text.index("problem 2") < page.text.index("problem 0")
    # Loss, learning rate and gradient norm, two plots of quality, one of depth, the graph.
    assert page.tags.count("svg") == 7


def test_it_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = Page(_make(tmp_path))
    assert {"script", "img", "link", "iframe", "object"}.isdisjoint(page.tags)
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "href", "style"}
    assert "//" not in "".join(str(value) for _, value in page.attributes)
    assert EVIL in page.text
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policy = next(v for k, v in page.attributes if k == "content" and v and "default-src" in v)
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "script-src" not in policy


def test_what_is_not_built_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    page = Page(_make(tmp_path, answers={}, answers_checkpoint={}, dataset_report={}))
    assert "Not built: answers-checkpoint, answers." in page.text
    assert "No model was asked anything" in page.text
    assert "No row is shown" in page.text
    assert "after 8 steps" in page.text


def test_a_gap_in_the_chain_is_said(tmp_path: Path) -> None:
    page = Page(_make(tmp_path, text={}))
    assert "The chain is NOT whole" in page.text
    assert "training: text: its digest is not recorded" in page.text


def test_rows_that_the_trainer_kept_come_first(tmp_path: Path) -> None:
    sample = b'[{"row": 5, "tokens": 2, "supervised": 1, "pieces": [["<", false, true]]}]'
    page = Page(_make(tmp_path, training={"metrics.json": b"{}", "sample.json": sample}))
    assert "Row 5: 2 tokens, 1 supervised" in page.text
    assert "Row r1" not in page.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('source = "/home/me/base"', 'source = "base"'),
        ("source = '../rows.jsonl'", 'source = "rows.jsonl"'),
        ('files = ["~/a", "./b/c"]', 'files = ["a", "c"]'),
        ('source = "hf://owner/name"', 'source = "hf://owner/name"'),
        ('prompt = "/think {question}"', 'prompt = "/think {question}"'),
    ],
)
def test_places_of_this_machine_are_hidden(text: str, shown: str) -> None:
    assert hide_places(text) == shown


def test_the_verb_writes_the_page_beside_the_links(tmp_path: Path) -> None:
    project, path = seal_recipe(tmp_path)
    argv = [sys.executable, "-m", "pipeline", "report", "--recipe", str(path)]
    argv += ["--store", str(project.store.root)]
    told = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    written = tmp_path / "out" / "mine" / "report.html"
    assert told.stdout == f"{written}\n"
    assert "My model" in written.read_text(encoding="utf-8")


def test_the_verb_without_anything_built(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pipeline", "report", "--store", str(tmp_path / "store")]
    told = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "there is nothing to report" in told.stderr
