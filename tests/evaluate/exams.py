"""A file of problems, as a recipe tells a stage of it."""

import hashlib
from pathlib import Path

from pipeline.evaluate.problems import Exam, write_exam


def make_exam(path: Path, **columns: str) -> str:
    exam = Exam(
        name=path.stem,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        problem=columns.get("problem", "problem"),
        solution=columns.get("solution", "solution"),
        domain="domain",
        system="",
        form="number",
        problems=0,
    )
    return write_exam(exam)
