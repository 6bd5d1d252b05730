"""Stage: problems -> each GGUF's answers, through the server that users will talk to.

In: `rows`, one directory per type with its model.gguf, and `exam-1` and so on, the user's own
problems. Out: scores.json and, in the order of the problems, answers-<TYPE>.jsonl. Each file is
served with its own chat template and asked through the OpenAI-compatible API by the official
client, which asks again what a fault of the connection or of the server left unanswered.

Greedy answers are the same bytes every time with `parallel` 1. With more, requests are computed in
batches that form as requests happen to come; sums then round differently, and where two tokens are
nearly equal another one may win (41 of 100 answers of a random Q4_K_M model, 5 of 100 in BF16).
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from pipeline.errors import StageError
from pipeline.evaluate.answers import Said, open_block, write_answers, write_scores
from pipeline.evaluate.problems import Problem, read_asked
from pipeline.log import step
from pipeline.serve.server import llama_server

# The client waits 0.5 s before the first, twice as long before each next, 8 s at most.
_RETRIES = 4
_ANSWER_S = 3600.0
# Room for what the chat template writes around a problem: a default system prompt.
_TEMPLATE_TOKENS = 2048


@dataclass(frozen=True, kw_only=True)
class Options:
    """`exams`: texts that `problems.write_exam` wrote; `answer` is how held-out rows are graded."""

    types: tuple[str, ...]
    problems: int
    answer: str
    exams: tuple[str, ...]
    max_tokens: int
    temperature: float
    seed: int
    parallel: int
    threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Ask each type every problem, grade and write its answers."""
    problems = read_asked(inputs, options.problems, form=options.answer, exams=options.exams)
    graded = {}
    for each in options.types:
        with step(f"ask {each} {len(problems)} problems"):
            said = _ask_all(inputs[each] / "model.gguf", problems, options)
        path = out / f"answers-{each}.jsonl"
        graded[each] = write_answers(path, problems, said, name=each)
    write_scores(out / "scores.json", graded)


def _ask_all(gguf: Path, problems: Sequence[Problem], options: Options) -> list[Said]:
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
        prompt = _render(client, base_url, problems[0])
        return list(pool.map(lambda each: _ask(client, each, options, prompt), problems))


def _render(client: openai.OpenAI, base_url: str, problem: Problem) -> str:
    """Return the server's own rendering of the problem; all of them end alike."""
    url, body = f"{base_url}/apply-template", {"messages": _make_messages(problem)}
    try:
        return str(client.post(url, cast_to=dict[str, str], body=body)["prompt"])
    except openai.APIError as error:
        raise _refuse(problem, error) from None


def _ask(client: openai.OpenAI, problem: Problem, options: Options, prompt: str) -> Said:
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
        raise _refuse(problem, error) from None
    choice, usage = completion.choices[0], completion.usage
    return Said(
        text=open_block(_read_text(choice.message), prompt),
        tokens=usage.completion_tokens if usage else 0,
        finished=choice.finish_reason != "length",
    )


def _refuse(problem: Problem, error: openai.APIError) -> StageError:
    return StageError(
        "the server did not answer a problem",
        on=problem.row_id,
        why=f"{type(error).__name__}: {error}",
        then="shorten [evaluate] max_tokens or the problem, or free memory, and build again",
    )


def _make_messages(problem: Problem) -> Any:
    return [{"role": role, "content": content} for role, content in problem.list_turns()]


def _read_text(message: Any) -> str:
    """Return all that the model wrote; a think block that the server split off is put back."""
    content = message.content or ""
    thinking = getattr(message, "reasoning_content", None)
    return content if not thinking else f"<think>\n{thinking.strip()}\n</think>\n{content}"
