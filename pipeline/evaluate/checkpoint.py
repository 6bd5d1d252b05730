"""Held-out problems -> greedy answers of the base and of the distilled model, before any export.

In: `text`, `rows`, and `adapter` or, trained whole, `tuned`. Out: scores.json, answers-base.jsonl
and answers-distilled.jsonl. One model in memory: the base answers with the adapter switched off.
Batches are padded on the left, where the attention mask hides the padding and positions are counted
from the first real token.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast

from pipeline.data.encoding import decode
from pipeline.data.rendering import Renderer
from pipeline.data.row import Message
from pipeline.data.style import Style
from pipeline.evaluate.grade import is_correct, read_answer
from pipeline.evaluate.problems import Problem, read_problems
from pipeline.log import say, step
from pipeline.sft.model import make_repeatable, read_adapted, read_base, silence_libraries


@dataclass(frozen=True, kw_only=True)
class Options:
    problems: int
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
) -> list[str]:
    """Return the greedy continuation of each prompt, in the prompts' order, up to one of `ends`."""
    how = GenerationConfig(
        do_sample=False,
        max_new_tokens=options.max_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
    )
    # Longest first, so that a batch holds prompts of about one length.
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    texts = [""] * len(prompts)
    for start in range(0, len(order), options.batch_size):
        part = order[start : start + options.batch_size]
        ids, mask = pad_left([prompts[i] for i in part], tokenizer.pad_token_id)
        ids, mask = ids.to(model.device), mask.to(model.device)
        answers = model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
        for i, answer in zip(part, answers[:, ids.shape[1] :], strict=True):
            said = list(takewhile(lambda each: each not in ends, answer.tolist()))
            texts[i] = decode(tokenizer, said, bare=True)
    return texts


def _grade(problems: list[Problem], texts: list[str], path: Path) -> dict[str, int]:
    lines, correct = [], 0
    for problem, text in zip(problems, texts, strict=True):
        right = is_correct(text, problem.solution)
        correct += right
        answer = {"id": problem.row_id, "answer": read_answer(text), "correct": right}
        lines.append(json.dumps(answer, ensure_ascii=False) + "\n")
    path.write_bytes("".join(lines).encode("utf-8"))
    return {"correct": correct, "total": len(problems)}


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
    problems = read_problems(inputs["rows"] / "held_out.jsonl", options.problems)
    prompts = [make_prompt(problem, renderer) for problem in problems]
    scores = {}
    for name, model in _read_models(inputs):
        with step(f"ask {name}"):
            texts = generate(model, tokenizer, prompts, options, ends=renderer.end_ids)
        scores[name] = _grade(problems, texts, out / f"answers-{name}.jsonl")
        say(f"  {name}: {scores[name]['correct']} of {scores[name]['total']} correct")
    text = json.dumps(scores, indent=2, sort_keys=True) + "\n"
    (out / "scores.json").write_text(text, encoding="utf-8")
