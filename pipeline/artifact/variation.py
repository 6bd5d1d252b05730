"""What a rebuild changes around a stage: all that a stage might let into its bytes and must not.

Another hash seed, time zone, locale and umask, and a wall clock that is 400 days slow: a small
library (shifted_clock.c), compiled here and preloaded. Backwards, since a deadline in the past ends
a wait where one in the future would never end.
"""

import os
import shutil
import subprocess
from pathlib import Path

from pipeline.artifact.engine import Variation
from pipeline.log import say

_SOURCE = Path(__file__).with_name("shifted_clock.c")
_SHIFT_S = -400 * 24 * 3600
_VARIABLES = {"LC_ALL": "C", "PYTHONHASHSEED": "4242", "TZ": "XYZ-13:30"}


def make_variation(work: Path) -> Variation:
    """Return the variation; its library lies in `work`."""
    clock = _compile_clock(work)
    if clock is None:
        say("the wall clock stays as it is: no C compiler (cc) to shift it")
        return Variation(variables=_VARIABLES, umask=0o077)
    shifted = {"LD_PRELOAD": str(clock), "TRISTILL_CLOCK_SHIFT_S": str(_SHIFT_S)}
    return Variation(variables=_VARIABLES | shifted, umask=0o077)


def _compile_clock(work: Path) -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = work / "shifted_clock.so"
    # Not optimised: the inlines of a newer libc would need symbols that an image's libc lacks.
    told = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O0", "-o", library, _SOURCE, "-ldl"],
        capture_output=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )
    return library if told.returncode == 0 else None
