"""[evaluate] of a recipe: what is asked besides the held-out rows, and what cannot be meant."""

from pathlib import Path

import pytest

from pipeline.artifact.key import make_key_documents
from pipeline.artifact.store import open_store
from pipeline.errors import UsageError
from pipeline.plan import list_targets
from pipeline.project import Project, read_project
from pipeline.recipe.recipe import read_recipe

_GOOD = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n'
_EXAM = '[[evaluate.rows]]\nsource = "mine.jsonl"\n'


def _write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "mine.jsonl").write_text('{"problem": "p", "solution": "s"}\n')
    path = folder / "recipe.toml"
    path.write_text(_GOOD + text)
    return path


def _read(folder: Path, text: str) -> Project:
    return read_project(_write(folder, text), open_store(folder / "store"))


def _make_keys(project: Project) -> dict[str, object]:
    return dict(make_key_documents(project.rules, project.make_environments()))


def test_problems_of_ones_own_are_asked_of_every_model(tmp_path: Path) -> None:
    text = f'[evaluate]\nanswer = "number"\nbefore_export = true\n{_EXAM}answer = "choice"\n'
    project = _read(tmp_path, text)
    rules = {rule.name: rule for rule in project.rules}
    for name in ("answers", "answers-checkpoint"):
        assert rules[name].sources == {"exam-1": tmp_path / "mine.jsonl"}
        assert rules[name].options["answer"] == "number"
        told = str(rules[name].options["exams"])
        assert '"form": "choice"' in told and '"name": "rows-1"' in told
        assert str(tmp_path) not in told


def test_they_are_asked_where_no_held_out_row_is(tmp_path: Path) -> None:
    project = _read(tmp_path, f"[evaluate]\nproblems = 0\n{_EXAM}")
    assert list_targets(project.rules, []) == ["gguf-Q4_K_M", "answers"]


def test_what_the_file_says_is_in_the_key_and_where_it_lies_is_not(tmp_path: Path) -> None:
    projects = [_read(tmp_path / name, f"[evaluate]\n{_EXAM}") for name in ("one", "two")]
    assert _make_keys(projects[0]) == _make_keys(projects[1])
    path = _write(tmp_path / "two", f"[evaluate]\n{_EXAM}")
    (tmp_path / "two" / "mine.jsonl").write_text('{"problem": "q", "solution": "s"}\n')
    changed = _make_keys(read_project(path, open_store(tmp_path / "two" / "store")))
    first = _make_keys(projects[0])
    assert {name for name in first if first[name] != changed[name]} == {"answers"}


def test_files_are_compared_on_as_many_tokens_as_the_recipe_says(tmp_path: Path) -> None:
    text = '[gguf]\ntypes = ["Q4_K_M", "BF16"]\n[evaluate]\ndivergence_tokens = 1000\n'
    project = _read(tmp_path, text)
    (rule,) = [rule for rule in project.rules if rule.name == "divergence"]
    assert set(rule.inputs) == {"base", "rows", "Q4_K_M", "BF16"}
    assert rule.scratch_bytes == 4 * 1000 * 512
    assert list_targets(project.rules, [])[-1] == "divergence"
    assert "divergence" not in [rule.name for rule in _read(tmp_path, "").rules]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[evaluate]\ndivergence_tokens = 9\n", "BF16, which is not in [gguf] types"),
        ("[evaluate]\nproblems = 401\n", "problems = 401: more than [dataset] held_out"),
        ('[evaluate]\nanswer = "last"\n', "must be one of exact, number, choice, contains"),
        (_EXAM.replace("mine", "yours"), '[[evaluate.rows]] source = "yours.jsonl": no file'),
        (_EXAM + 'answr = "number"\n', "[[evaluate.rows]] answr: unknown key; did you mean answer"),
        (_EXAM + 'name = "a"\n' + _EXAM + 'name = "a"\n', "two files are called a"),
        ("[[evaluate.rows]]\nproblems = 3\n", "[[evaluate.rows]] source is missing"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_recipe(_write(tmp_path, text))
    assert told in caught.value.why
