"""`python -m bench.demo_seeds SEED...`: the whole demonstration with each seed, as a table.

Shows that the demonstration does not hang on a lucky seed. Every seed makes its own base model,
problems and traces; the table goes to stdout in Markdown and is kept in `bench/results/`.
"""

import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass

from pipeline.artifact.key import REPOSITORY

_WORK = REPOSITORY / "bench" / "work"
_COLUMNS = ("base", "distilled", "BF16", "Q8_0", "Q4_K_M")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    seed: int
    percent: dict[str, float]
    seconds: float


def run_seed(seed: int) -> Outcome:
    """Build the demonstration with this seed; return each model's accuracy in percent."""
    text = (REPOSITORY / "recipes" / "demo.toml").read_text(encoding="utf-8")
    _WORK.mkdir(parents=True, exist_ok=True)
    recipe = _WORK / f"demo-{seed}.toml"
    recipe.write_text(re.sub(r"(?m)^seed = .*$", f"seed = {seed}", text), encoding="utf-8")
    started = time.monotonic()
    command = [sys.executable, "-m", "pipeline", "build"]
    subprocess.run(
        [*command, "--recipe", recipe, "--store", _WORK / "store"],
        cwd=REPOSITORY,
        stdout=sys.stderr,
        check=True,
    )
    seconds = time.monotonic() - started
    scores: dict[str, dict[str, int]] = {}
    for name in ("answers-checkpoint", "answers"):
        path = _WORK / "out" / recipe.stem / name / "scores.json"
        scores |= json.loads(path.read_text(encoding="utf-8"))
    percent = {name: 100 * score["correct"] / score["total"] for name, score in scores.items()}
    return Outcome(seed=seed, percent=percent, seconds=seconds)


def format_table(outcomes: list[Outcome]) -> str:
    """Return the Markdown table of held-out accuracies."""
    lines = [
        f"| seed | {' | '.join(_COLUMNS)} | seconds |",
        f"|---|{'---|' * len(_COLUMNS)}---|",
    ]
    for outcome in outcomes:
        cells = " | ".join(f"{outcome.percent[name]:.2f} %" for name in _COLUMNS)
        lines.append(f"| {outcome.seed} | {cells} | {outcome.seconds:.0f} |")
    return "\n".join(lines) + "\n"


def main(seeds: list[int]) -> None:
    """Run the seeds and write the table."""
    sys.stdout.write(format_table([run_seed(seed) for seed in seeds]))


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
