"""The folder for others: every file by the name that they expect, nothing of this machine."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.errors import CapacityError
from pipeline.export.card import make_markdown
from pipeline.export.folder import Entry, make_file_name, write_folder
from pipeline.export.modelfile import Chat, make_modelfile
from tests.export.sealed_recipe import RECIPE, seal_recipe, write_recipe

_FILES = {
    *("My-model-BF16.gguf", "My-model-Q4_K_M.gguf", "Modelfile", "Modelfile-BF16"),
    *("README.md", "report.html", "provenance.jsonl", "SHA256SUMS"),
}


def _run(
    folder: Path, recipe: Path, verb: str, *argv: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "pipeline", verb, "--recipe", str(recipe)]
    return subprocess.run(
        [*command, "--store", str(folder / "store"), *argv],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a sealed recipe that was exported."""
    folder: Path = tmp_path_factory.mktemp("recipe")
    _, recipe = seal_recipe(folder)
    told = _run(folder, recipe, "export")
    assert told.returncode == 0, told.stderr
    assert told.stdout.endswith(f"\n{folder / 'out' / 'mine' / 'export'}\n")
    return folder


def test_every_file_is_there_and_its_digest_is_right(made: Path) -> None:
    folder = made / "out" / "mine" / "export"
    assert {path.name for path in folder.iterdir()} == _FILES
    argv = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    told = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True)
    assert len(told.stdout.splitlines()) == len(_FILES) - 1
    sealed = next((made / "store").glob("*-gguf-Q4_K_M")) / "model.gguf"
    assert (folder / "My-model-Q4_K_M.gguf").samefile(sealed)


def test_nothing_of_this_machine_is_in_it(made: Path) -> None:
    folder = made / "out" / "mine" / "export"
    for path in folder.iterdir():
        if path.suffix != ".gguf":
            assert str(made) not in path.read_text(encoding="utf-8"), path.name


def test_the_modelfile_of_the_type_that_is_served(made: Path) -> None:
    text = (made / "out" / "mine" / "export" / "Modelfile").read_text()
    assert text == (
        "FROM ./My-model-Q4_K_M.gguf\n"
        'TEMPLATE """{{- .Content }}"""\n'
        'PARAMETER stop "</s>"\n'
        "PARAMETER num_ctx 512\n"
        "PARAMETER temperature 0\n"
        'LICENSE """mit"""\n'
    )


def test_the_card_tells_licence_quality_data_training_and_provenance(made: Path) -> None:
    text = (made / "out" / "mine" / "export" / "README.md").read_text(encoding="utf-8")
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    fields = dict(line.split(": ", 1) for line in head.splitlines())
    assert {name: json.loads(told) for name, told in fields.items()} == {
        "license": "mit",
        "library_name": "gguf",
        "base_model": ["owner/base"],
        "base_model_relation": "finetune",
        "pipeline_tag": "text-generation",
        "tags": ["gguf", "llama.cpp", "distillation"],
    }
    for told in (
        *("# My-model", "`My-model-Q4_K_M.gguf` | 1,024 |", "llama-server --model"),
        *("| GGUF Q4_K_M | 1,024 | 75.0% | 25.0% to 75.0% | 3 of 4 |", "`rank` | 16 |"),
        *("Held-out loss: 5.5000 before, 0.2500 after 8 steps.", "| train | 10 | 100 | 40 |"),
        *("Rows that were left out: repeated: 7.", 'license = "mit"', "provenance.jsonl"),
    ):
        assert told in body, told


def test_the_provenance_holds_every_statement(made: Path) -> None:
    lines = (made / "out" / "mine" / "export" / "provenance.jsonl").read_text().splitlines()
    statements = [json.loads(line) for line in lines]
    assert {each["_type"] for each in statements} == {"https://in-toto.io/Statement/v1"}
    names = {subject["name"] for each in statements for subject in each["subject"]}
    assert {"model.gguf", "metrics.json", "ollama.json"} <= names


def test_an_export_replaces_its_own_and_nothing_else(made: Path) -> None:
    recipe = made / "mine.toml"
    mine = made / "my own folder"
    mine.mkdir()
    (mine / "thesis.txt").write_text("three years")
    told = _run(made, recipe, "export", "--to", str(mine))
    assert told.returncode == 2
    assert "the folder holds something else" in told.stderr
    assert (mine / "thesis.txt").read_text() == "three years"
    assert _run(made, recipe, "export").returncode == 0
    folder = made / "out" / "mine"
    assert {path.name for path in (folder / "export").iterdir()} == _FILES
    assert not [path for path in folder.iterdir() if path.name.startswith(".export")]


def test_a_publication_is_a_dry_run_unless_it_is_told_to_send(made: Path) -> None:
    told = _run(made, made / "mine.toml", "publish", "--repository", "org/model")
    assert told.returncode == 0
    assert "dry run: nothing was sent to org/model (private)" in told.stderr
    assert "README.md" in told.stdout


def test_what_cannot_be_published_is_said_before_anything_is_done(made: Path) -> None:
    upload = ("publish", "--upload")
    told = _run(made, made / "mine.toml", *upload)
    assert told.returncode == 2
    assert "[export] repository" in told.stderr
    told = _run(made, made / "mine.toml", *upload, "--repository", "org/model")
    assert told.returncode == 3
    assert "there is no token" in told.stderr
    unlicensed = write_recipe(made / "store", RECIPE.replace('license = "mit"\n', ""))
    told = _run(made, unlicensed, *upload, "--repository", "org/model", HF_TOKEN="hf_x")
    assert told.returncode == 2
    assert "[export] license" in told.stderr


def test_a_name_that_is_none_on_the_hub_is_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, RECIPE + 'repository = "../model"\n')
    told = _run(tmp_path, recipe, "export")
    assert told.returncode == 2
    assert '[export] repository = "../model": must be owner/name' in told.stderr


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("tristill-demo", "tristill-demo-Q8_0.gguf"),
        ("My model: ä/b", "My-model-b-Q8_0.gguf"),
        ("..", "model-Q8_0.gguf"),
    ],
)
def test_names_are_plain(model: str, name: str) -> None:
    assert make_file_name(model, "Q8_0") == name


@pytest.mark.parametrize(
    ("chat", "line"),
    [
        (Chat(template="", stops=(), why="it counts turns"), "# for it counts turns."),
        (Chat(template='{{- "a" }}"""', stops=(), why=""), "# for it holds three quotation marks"),
        (Chat(template="{{- .Content }}", stops=(), why="", bos="<s>"), '{{- "<s>" }}'),
        (Chat(template="", stops=('say "x"', "</s>"), why="w"), 'PARAMETER stop "</s>"'),
    ],
)
def test_a_chat_that_cannot_be_said_is_not_said(chat: Chat, line: str) -> None:
    text = make_modelfile("a.gguf", chat, context=64, temperature=0.5)
    assert line in text
    assert ("TEMPLATE" in text.replace("No TEMPLATE", "")) == bool(chat.bos)
    assert "PARAMETER temperature 0.5" in text
    assert 'say "x"' not in text


def test_a_bar_in_a_cell_is_no_column() -> None:
    assert make_markdown(["a", "b"], [["x|y", "1"]]).splitlines() == [
        *("| a | b |", "| --- | ---: |", "| x\\|y | 1 |"),
    ]


def test_files_that_cannot_be_linked_are_copied_if_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path("/dev/shm")
    if other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system")
    with tempfile.TemporaryDirectory(dir=other) as elsewhere:
        sealed = Path(elsewhere) / "model.gguf"
        sealed.write_bytes(b"GGUF")
        entry = Entry(name="a.gguf", source=sealed, sha256="0" * 64)
        write_folder(tmp_path / "export", [entry])
        assert (tmp_path / "export" / "a.gguf").read_bytes() == b"GGUF"
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
        with pytest.raises(CapacityError, match="not enough disk space") as raised:
            write_folder(tmp_path / "second", [entry])
    assert "4 bytes would be copied; 3 are free" in raised.value.why
    assert not (tmp_path / "second").exists()
