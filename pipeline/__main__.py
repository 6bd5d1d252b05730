"""`python -m pipeline VERB`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - the rest of the package cannot even be imported there
    sys.stderr.write(
        "error: this Python is too old\n"
        f"  on:   {sys.executable}, {sys.version.split()[0]}\n"
        "  why:  Tristill needs Python 3.11 or newer\n"
        "  next: install python3.11 and run with PYTHON=python3.11\n"
    )
    sys.exit(3)

from pipeline.cli import main

sys.exit(main())
