"""The host side needs Python and nothing else; every error has the one root."""

import ast
import subprocess
import sys

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
