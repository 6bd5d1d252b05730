"""Problems -> greedy answers of the base and of the distilled model, before any export.

In: `text`, `rows`, `exam-1` and so on, the user's own problems, and `adapter` or, trained whole,
`tuned`. Out: scores.json, answers-base.jsonl, answers-distilled.jsonl. One model in memory: the
base answers with the adapter switched off. Batches are padded on the left, where the attention
mask hides the padding and positions are counted from the first real token.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from pipeline.data.encoding import decode
from pipeline.data.rendering import Renderer
from pipeline.data.row import Message
from pipeline.data.style import Style
from pipeline.evaluate.answers import Said, open_block, write_answers, write_scores
from pipeline.evaluate.grade import CONTROL_MARKS
from pipeline.evaluate.problems import Problem, read_asked
from pipeline.log import step
from pipeline.sft.model import make_repeatable, read_adapted, read_base, silence_libraries


@dataclass(frozen=True, kw_only=True)
class Options:
    """`exams`: texts that `problems.write_exam` wrote; `answer` is how held-out rows are graded."""

    problems: int
    answer: str
    exams: tuple[str, ...]
    max_tokens: int
    batch_size: int
    cpu_threads: int


def make_prompt(problem: Problem, renderer: Renderer) -> list[int]:
    """Return the ids of what is asked, up to the assistant's turn."""
    turns = [Message(role=role, content=content) for role, content in problem.list_turns()]
    return renderer.render_prompt(turns, on=f"row {problem.row_id}")


def pad_left(prompts: list[list[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return ids_BT and attention_mask_BT of prompts that all end in the last column."""
    width = max(map(len, prompts))
    ids_BT = [[pad_id] * (width - len(p)) + p for p in prompts]
    mask_BT = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
    return torch.tensor(ids_BT), torch.tensor(mask_BT)


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    options: Options,
    *,
    ends: Collection[int],
) -> list[Said]:
    """Return the greedy continuation of each prompt, in the prompts' order, up to one of `ends`."""
    how = GenerationConfig(
        do_sample=False,
        max_new_tokens=options.max_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    # Longest first, so that a batch holds prompts of about one length.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found: dict[int, Said] = {}
    for start in range(0, len(order), options.batch_size):
        part = order[start : start + options.batch_size]
        ids, mask = pad_left([prompts[i] for i in part], tokenizer.pad_token_id)
        ids, mask = ids.to(model.device), mask.to(model.device)
        answers = model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
        for i, answer in zip(part, answers[:, ids.shape[1] :], strict=True):
            said = list(takewhile(lambda each: each not in ends, answer.tolist()))
            finished = len(said) < len(answer)
            text = open_block(decode_said(tokenizer, said), decode_said(tokenizer, prompts[i]))
            # The token that ends the turn is one that was written.
            found[i] = Said(text=text, tokens=len(said) + finished, finished=finished)
    return [found[i] for i in range(len(prompts))]


def decode_said(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Return the text of what a model said, without control tokens but those around thinking."""
    marks = {tokenizer.backend_tokenizer.token_to_id(mark) for mark in CONTROL_MARKS}
    parts = [list(part) for _, part in groupby(ids, key=lambda each: each in marks)]
    return "".join(decode(tokenizer, part, bare=part[0] not in marks) for part in parts)


def _read_models(inputs: Mapping[str, Path]) -> Iterator[tuple[str, PreTrainedModel]]:
    """Yield the base and the distilled model by their names, one at a time."""
    if "adapter" not in inputs:
        yield "base", read_base(inputs["text"], "lora")
        yield "distilled", read_base(inputs["tuned"], "lora")
        return
    model = read_adapted(inputs["text"], inputs["adapter"])
    with model.disable_adapter():
        yield "base", model
    yield "distilled", model


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write both models' answers and scores. Raises StageError when too few rows were held out."""
    make_repeatable(options.cpu_threads)
    silence_libraries()
    renderer = Renderer(inputs["text"], Style())
    tokenizer = renderer.tokenizer
    problems = read_asked(inputs, options.problems, form=options.answer, exams=options.exams)
    prompts = [make_prompt(problem, renderer) for problem in problems]
    graded = {}
    for name, model in _read_models(inputs):
        with step(f"ask {name}"):
            said = generate(model, tokenizer, prompts, options, ends=renderer.end_ids)
        graded[name] = write_answers(out / f"answers-{name}.jsonl", problems, said, name=name)
    write_scores(out / "scores.json", graded)
