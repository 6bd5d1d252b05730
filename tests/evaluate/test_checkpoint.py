"""Batched, left-padded greedy answers equal those of one prompt at a time."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipeline.data.encoding import decode, read_tokenizer
from pipeline.data.rendering import Renderer
from pipeline.data.style import Style
from pipeline.demo.tokenizer import write_tokenizer as write_demo_tokenizer
from pipeline.errors import StageError
from pipeline.evaluate import checkpoint
from pipeline.evaluate.problems import Problem
from pipeline.sft.adapter_files import read_adapter_tensors, write_adapter
from pipeline.sft.model import read_adapted, read_base
from tests.data.canonical import assistant, chat, user, write_canonical
from tests.tiny_text import (
    BOS,
    END_INST,
    EOS,
    INST,
    byte_ids,
    write_text_checkpoint,
    write_tokenizer,
)

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

OPTIONS = checkpoint.Options(
    problems=5, answer="exact", exams=(), max_tokens=6, batch_size=2, cpu_threads=1
)
PROBLEMS = ["a", "a longer problem", "bc", "12 + 34?", "the longest problem of them all"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("text", "adapter", "rows")}
    write_text_checkpoint(folders["text"])
    torch.manual_seed(3)
    config = LoraConfig(
        r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"
    )
    model = get_peft_model(read_base(folders["text"], "lora"), config)
    write_adapter(config.to_dict(), read_adapter_tensors(model), folders["adapter"])
    rows = [
        replace(
            chat(user(problem), assistant("7", "t"), row_id=f"h{n}"), problem=problem, solution="7"
        )
        for n, problem in enumerate(PROBLEMS)
    ]
    write_canonical(folders["rows"] / "held_out.jsonl", rows)
    return folders


def answer_alone(model: torch.nn.Module, prompt: list[int]) -> list[int]:
    """Greedy decoding without cache, batch or padding: the plainest there is."""
    ids = list(prompt)
    while len(ids) < len(prompt) + OPTIONS.max_tokens:
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token == 2:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_batches_answer_as_single_prompts(inputs: dict[str, Path], size: int) -> None:
    model = read_adapted(inputs["text"], inputs["adapter"])
    tokenizer = read_tokenizer(inputs["text"])
    prompts = [[BOS, INST, *byte_ids(problem), END_INST] for problem in PROBLEMS]
    options = replace(OPTIONS, batch_size=size)
    found = checkpoint.generate(model, tokenizer, prompts, options, ends={EOS})
    alone = [answer_alone(model, prompt) for prompt in prompts]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in alone]
    assert [each.text for each in found] == texts
    assert [each.finished for each in found] == [len(ids) < 6 for ids in alone]
    assert [each.tokens for each in found] == [min(len(ids) + 1, 6) for ids in alone]


def test_an_answer_stops_at_whatever_ends_a_turn(inputs: dict[str, Path]) -> None:
    """Some models have an end of turn that is not their EOS."""
    model = read_adapted(inputs["text"], inputs["adapter"])
    tokenizer = read_tokenizer(inputs["text"])
    prompt = [BOS, INST, *byte_ids(PROBLEMS[0]), END_INST]
    answer = answer_alone(model, prompt)
    end = next(each for each in answer if each != answer[0])
    (found,) = checkpoint.generate(model, tokenizer, [prompt], OPTIONS, ends={EOS, end})
    said = answer[: answer.index(end)]
    assert found.text == tokenizer.decode(said, skip_special_tokens=True)
    assert (found.finished, found.tokens) == (True, len(said) + 1)


_WITH_SYSTEM = (
    "{{ bos_token }}{% for each in messages %}<{{ each.role }}>{{ each.content }}{% endfor %}"
)


def test_a_problem_is_asked_with_its_rows_system_prompt(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, _WITH_SYSTEM)
    renderer = Renderer(tmp_path, Style())
    bare = Problem(row_id="a", problem="1 + 1?", solution="2")
    taught = replace(bare, system="Be brief.")
    asked = [checkpoint.make_prompt(each, renderer) for each in (bare, taught)]
    texts = [decode(renderer.tokenizer, ids, bare=True) for ids in asked]
    assert texts == ["<user>1 + 1?", "<system>Be brief.<user>1 + 1?"]


def test_control_tokens_around_thinking_are_kept_and_no_others(tmp_path: Path) -> None:
    write_demo_tokenizer(tmp_path)
    tokenizer = read_tokenizer(tmp_path)
    said = "[THINK]1+7=8[/THINK]It is 8[TOOL_CALLS]."
    ids = tokenizer.encode(said, add_special_tokens=False)
    assert len(ids) < len(said) - 20
    assert checkpoint.decode_said(tokenizer, ids) == "[THINK]1+7=8[/THINK]It is 8."


def test_padding_stands_on_the_left() -> None:
    ids, mask = checkpoint.pad_left([[5], [6, 7, 8]], 11)
    assert ids.tolist() == [[11, 11, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_scores_and_answers(inputs: dict[str, Path], tmp_path: Path) -> None:
    checkpoint.run(inputs, OPTIONS, tmp_path)
    scores = json.loads((tmp_path / "scores.json").read_text())
    answers = {}
    for name in ("base", "distilled"):
        lines = (tmp_path / f"answers-{name}.jsonl").read_bytes().split(b"\n")[:-1]
        answers[name] = [json.loads(line) for line in lines]
        assert [line["id"] for line in answers[name]] == ["h0", "h1", "h2", "h3", "h4"]
        correct = sum(line["correct"] for line in answers[name])
        assert (scores[name]["correct"], scores[name]["total"]) == (correct, 5)
    assert scores["distilled"]["compared"]["with"] == "base"
    # The adapter is switched off for the one and on for the other.
    assert answers["base"] != answers["distilled"]


def test_a_checkpoint_that_was_trained_whole_answers_beside_its_base(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    write_text_checkpoint(tmp_path / "tuned", seed=5)
    whole = {"text": inputs["text"], "rows": inputs["rows"], "tuned": tmp_path / "tuned"}
    checkpoint.run(whole, OPTIONS, tmp_path)
    found = {
        name: (tmp_path / f"answers-{name}.jsonl").read_bytes() for name in ("base", "distilled")
    }
    (tmp_path / "again").mkdir()
    checkpoint.run(inputs, OPTIONS, tmp_path / "again")
    assert found["base"] == (tmp_path / "again/answers-base.jsonl").read_bytes()
    assert found["distilled"] != found["base"]


def test_nothing_was_held_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "held_out.jsonl").write_text("")
    with pytest.raises(StageError, match="fewer held-out problems"):
        checkpoint.run({**inputs, "rows": tmp_path}, OPTIONS, tmp_path)
