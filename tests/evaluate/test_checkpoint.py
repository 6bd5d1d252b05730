"""Batched, left-padded greedy answers equal those of one prompt at a time."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from pipeline.errors import StageError
from pipeline.evaluate import checkpoint
from pipeline.sft.adapter_files import read_adapter_tensors, write_adapter
from pipeline.sft.chat import read_tokenizer
from pipeline.sft.model import read_adapted, read_base
from pipeline.sft.rows import Row, write_rows
from tests.tiny_text import BOS, END_INST, INST, byte_ids, write_text_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

OPTIONS = checkpoint.Options(problems=5, max_tokens=6, batch_size=2, cpu_threads=1)
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
    write_adapter(model, read_adapter_tensors(model), folders["adapter"])
    write_rows(
        folders["rows"] / "held_out.jsonl",
        [Row(f"h{n}", problem, "t", "7") for n, problem in enumerate(PROBLEMS)],
    )
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
    options = checkpoint.Options(problems=5, max_tokens=6, batch_size=size, cpu_threads=1)
    found = checkpoint.generate(model, tokenizer, prompts, options)
    alone = [answer_alone(model, prompt) for prompt in prompts]
    assert found == [tokenizer.decode(ids, skip_special_tokens=True) for ids in alone]


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
        assert scores[name] == {"correct": correct, "total": 5}
    # The adapter is switched off for the one and on for the other.
    assert answers["base"] != answers["distilled"]


def test_nothing_was_held_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "held_out.jsonl").write_text("")
    with pytest.raises(StageError, match="nothing to ask"):
        checkpoint.run({**inputs, "rows": tmp_path}, OPTIONS, tmp_path)
