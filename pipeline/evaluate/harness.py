"""The command line of EleutherAI's lm-evaluation-harness, which asks an endpoint its own tasks.

Standard library alone: the harness is the user's own installation. A chat endpoint gives no
log-likelihoods of a given text, so only tasks that generate can be asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluate.grade import THINK_END

PROGRAM = "lm_eval"
KEY_VARIABLE = "OPENAI_API_KEY"
_TIMEOUT_S = 3600


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What is asked of the endpoint at `url`; `limit` 0 asks all of each task, `tasks_directory`
    holds tasks of the user's own."""

    url: str
    model: str
    tasks: tuple[str, ...]
    parallel: int
    max_tokens: int
    seed: int
    limit: int = 0
    tasks_directory: Path | None = None


def make_harness_argv(program: str, asking: Asking, out: Path) -> list[str]:
    """Return the command that asks the tasks and writes results and samples below `out`."""
    model = {
        "base_url": f"{asking.url}/v1/chat/completions",
        "model": asking.model,
        "num_concurrent": asking.parallel,
        "max_gen_toks": asking.max_tokens,
        "max_retries": 3,
        "timeout": _TIMEOUT_S,
        # What precedes the answer in the text, where the server does not split it off.
        "think_end_token": THINK_END,
    }
    argv = [program, "--model", "local-chat-completions"]
    argv += ["--model_args", ",".join(f"{name}={value}" for name, value in model.items())]
    argv += ["--tasks", ",".join(asking.tasks), "--apply_chat_template"]
    argv += ["--seed", str(asking.seed), "--log_samples", "--output_path", str(out)]
    if asking.tasks_directory is not None:
        argv += ["--include_path", str(asking.tasks_directory)]
    if asking.limit:
        argv += ["--limit", str(asking.limit)]
    return argv


def make_harness_variables(variables: Mapping[str, str], key: str = "") -> dict[str, str]:
    """Return what the harness sees: the caller's variables, and the endpoint's key, which stands on
    no command line."""
    # A key of the caller's is for another endpoint; the harness wants one, if only in name.
    return {**variables, KEY_VARIABLE: key or "none"}


def find_unmeant(tasks: Sequence[str], model: str) -> str:
    """Return the first text that would end a setting of the harness's early; "" when none would."""
    return next((each for each in (*tasks, model) if "," in each or "=" in each), "")
