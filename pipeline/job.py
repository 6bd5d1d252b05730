"""What a stage sees inside an image: the mirror of the engines.

An engine writes one job document (JSON) and runs `python -m pipeline.job JOB.json` in the image's
environment. The document names the stage module, its input directories, its options and the one
directory that it may write. A stage is a module with a frozen `Options` dataclass and
`run(inputs, options, out)`, or `run(inputs, options, out, work)` if its rule says that it resumes;
it cannot tell which engine runs it.
"""

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from pipeline.errors import StageError, TristillError, explain_os_error
from pipeline.log import start_log


def _make_options(options_type: type, values: dict[str, Any]) -> object:
    """Return the stage's options; JSON lists become tuples, so that options stay hashable."""
    names = {field.name for field in dataclasses.fields(options_type)}
    assert names == set(values), f"plan and stage disagree on options: {names ^ set(values)}"
    return options_type(
        **{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    )


def run_job(document: dict[str, Any]) -> None:
    """Import the stage named by the document and run it."""
    stage = importlib.import_module(f"pipeline.{document['stage']}")
    stage.run(
        {label: Path(path) for label, path in document["inputs"].items()},
        _make_options(stage.Options, document["options"]),
        Path(document["out"]),
        *([Path(document["work"])] if "work" in document else []),
    )


def main(argv: list[str]) -> int:
    """Run one job document; return the exit code that the engine passes on."""
    start_log()
    try:
        run_job(json.loads(Path(argv[0]).read_text(encoding="utf-8")))
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return StageError.exit_code
    except OSError as error:
        if (explained := explain_os_error(error)) is None:
            raise
        sys.stderr.write(f"error: {explained}\n")
        return StageError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
