"""The host side needs Python and nothing else; every error has the one root."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY

_BLOCKED = ("torch", "numpy", "transformers", "safetensors", "peft", "trl", "datasets", "yaml")

_IMPORT_CLI = f"""
import sys
for name in {_BLOCKED!r}:
    sys.modules[name] = None
import pipeline.cli
"""


def test_the_command_line_imports_the_standard_library_alone() -> None:
    subprocess.run([sys.executable, "-S", "-c", _IMPORT_CLI], cwd=REPOSITORY, check=True)


_PLAN = f"""
import sys
for name in {_BLOCKED!r}:
    sys.modules[name] = None
from pipeline.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("argv", [["plan", "--json"], ["plan", "merged", "--price", "2"]])
@pytest.mark.parametrize("base", ["demo", "/models/Devstral-Small-2-24B-Instruct-2512"])
def test_a_plan_needs_the_standard_library_alone(
    tmp_path: Path, argv: list[str], base: str
) -> None:
    """Without any package installed, and with those of the images blocked."""
    recipe = tmp_path / "mine.toml"
    recipe.write_text(f'[base]\nsource = "{base}"\n[dataset]\nsource = "rows.jsonl"\n')
    (tmp_path / "rows.jsonl").write_text('{"problem": "p", "thinking": "t", "solution": "s"}\n')
    where = ["--recipe", str(recipe), "--store", str(tmp_path / "store")]
    told = subprocess.run(
        [sys.executable, "-S", "-c", _PLAN, *argv, *where, "--graph", str(tmp_path / "plan.svg")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "adapter" in told.stdout
    assert (tmp_path / "plan.svg").is_file()


def test_every_exception_class_derives_from_the_root() -> None:
    stray = []
    for path in (REPOSITORY / "pipeline").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and path.name != "errors.py":
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                stray += [node.name for base in bases if base.endswith(("Error", "Exception"))]
    assert stray == []


def test_files_and_functions_stay_short() -> None:
    long = []
    for path in (REPOSITORY / "pipeline").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                long.append(f"{path.name}: {node.name}")
    assert long == []
