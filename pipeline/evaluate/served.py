"""Stage: held-out problems -> each GGUF's answers, through the server that users will talk to.

In: `rows`, and one directory per type with its model.gguf. Out: scores.json and, in held-out order,
answers-<TYPE>.jsonl. Each file is served with its own chat template and asked through the
OpenAI-compatible API by the official client.

Greedy answers are the same bytes every time with `parallel` 1. With more, requests are computed in
batches that form as requests happen to come; sums then round differently, and where two tokens are
nearly equal another one may win (41 of 100 answers of a random Q4_K_M model, 5 of 100 in BF16).
"""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from pipeline.errors import StageError
from pipeline.evaluate.grade import is_correct, read_answer
from pipeline.evaluate.problems import Problem, read_problems
from pipeline.log import say, step
from pipeline.serve.server import llama_server

_ROWS = "held_out.jsonl"
_RETRIES = 2
_ANSWER_S = 3600.0
# Room for what the chat template writes around a problem: a default system prompt.
_TEMPLATE_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Options:
    types: tuple[str, ...]
    problems: int
    max_tokens: int
    temperature: float
    seed: int
    parallel: int
    threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Ask each type the first held-out problems, grade and write its answers."""
    problems = read_problems(inputs["rows"] / _ROWS, options.problems)
    scores = {}
    for each in options.types:
        with step(f"ask {each} {len(problems)} problems"):
            answers = _ask_all(inputs[each] / "model.gguf", problems, options)
        correct = [is_correct(a, p.solution) for a, p in zip(answers, problems, strict=True)]
        scores[each] = {"correct": sum(correct), "total": len(problems)}
        say(f"{each}: {sum(correct)} of {len(problems)} correct")
        lines = [
            _make_line(p, a, correct=c) for p, a, c in zip(problems, answers, correct, strict=True)
        ]
        (out / f"answers-{each}.jsonl").write_text("".join(lines), encoding="utf-8")
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


def _make_line(problem: Problem, text: str, *, correct: bool) -> str:
    line = {"id": problem.row_id, "answer": read_answer(text), "correct": correct, "text": text}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _ask_all(gguf: Path, problems: Sequence[Problem], options: Options) -> list[str]:
    """Return the answers in the problems' order."""
    longest = max(len(f"{each.system}{each.problem}".encode()) for each in problems)
    context = options.max_tokens + longest + _TEMPLATE_TOKENS
    with (
        llama_server(
            gguf, context=context, parallel=options.parallel, threads=options.threads
        ) as base_url,
        openai.OpenAI(
            base_url=f"{base_url}/v1", api_key="none", max_retries=_RETRIES, timeout=_ANSWER_S
        ) as client,
        ThreadPoolExecutor(options.parallel) as pool,
    ):
        return list(pool.map(lambda each: _ask(client, each, options), problems))


def _ask(client: openai.OpenAI, problem: Problem, options: Options) -> str:
    try:
        completion = client.chat.completions.create(
            model="model.gguf",
            messages=_make_messages(problem),
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
            # A prompt that is computed in part from a slot's last one may round differently.
            extra_body={"cache_prompt": False},
        )
    except openai.APIError as error:
        raise StageError(
            "the server did not answer a problem",
            on=problem.row_id,
            why=f"{type(error).__name__}: {error}",
            then="shorten [evaluate] max_tokens or the problem, or free memory, and build again",
        ) from None
    return _read_text(completion.choices[0].message)


def _make_messages(problem: Problem) -> Any:
    return [{"role": role, "content": content} for role, content in problem.list_turns()]


def _read_text(message: Any) -> str:
    """Return all that the model wrote; a think block that the server split off is put back."""
    content = message.content or ""
    thinking = getattr(message, "reasoning_content", None)
    return content if not thinking else f"<think>\n{thinking.strip()}\n</think>\n{content}"
