"""The demonstration's tokenizer: Mistral's ids, tekken's splits, one BOS, text comes back."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, strategies
from jinja2.exceptions import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pipeline.demo.problems import Problem, make_drill
from pipeline.demo.shape import VOCABULARY_SIZE, make_config
from pipeline.demo.tokenizer import (
    CONTROL_TOKEN_COUNT,
    TEKKEN_PATTERN,
    make_tokenizer,
    write_tokenizer,
)

pytestmark = pytest.mark.train

TOKENIZER = make_tokenizer()
TRACE = "<think>\n0+1+7=08\n0+3+8=11\n</think>\n6018"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(out)
    (out / "config.json").write_text(json.dumps(make_config(256)), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def loaded(directory: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize(
    ("token", "token_id"),
    [
        ("<unk>", 0),
        ("<s>", 1),
        ("</s>", 2),
        ("[INST]", 3),
        ("[/INST]", 4),
        ("[AVAILABLE_TOOLS]", 5),
        ("[IMG]", 10),
        ("<pad>", 11),
        ("[SYSTEM_PROMPT]", 17),
        ("[/SYSTEM_PROMPT]", 18),
        ("<SPECIAL_20>", 20),
        ("[THINK]", 34),
        ("[/THINK]", 35),
        ("<SPECIAL_63>", 63),
        ("Ā", 64),  # byte 0
        ("a", 64 + ord("a")),
    ],
)
def test_tokens_have_mistrals_ids(
    loaded: PreTrainedTokenizerFast, token: str, token_id: int
) -> None:
    assert loaded.convert_tokens_to_ids(token) == token_id


def test_vocabulary_is_full(loaded: PreTrainedTokenizerFast) -> None:
    assert sorted(loaded.get_vocab().values()) == list(range(VOCABULARY_SIZE))


def test_trace_is_split_as_expected(loaded: PreTrainedTokenizerFast) -> None:
    assert loaded.convert_ids_to_tokens(loaded(TRACE).input_ids) == [
        "<s>", "<think", ">Ċ", "0", "+", "1", "+", "7", "=", "0", "8", "Ċ",
        "0", "+", "3", "+", "8", "=", "1", "1", "Ċ", "</", "think", ">Ċ", "6", "0", "1", "8",
    ]  # fmt: skip


@given(text=strategies.text())
def test_text_comes_back(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    if all(token_id >= CONTROL_TOKEN_COUNT for token_id in ids):
        assert TOKENIZER.decode(ids) == text


@pytest.mark.parametrize("text", [TRACE, "", "Ünïcode 🚀 \t\r\n  x", "12  34\n\n5", "Don't STOP"])
def test_transformers_and_the_file_agree(
    loaded: PreTrainedTokenizerFast, directory: Path, text: str
) -> None:
    ids = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(text).ids
    assert loaded(text).input_ids == ids
    assert ids.count(1) == 1
    assert loaded.decode(ids[1:]) == text


def test_chat_has_one_bos_and_ends_with_eos(loaded: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": TRACE},
    ]
    text = loaded.apply_chat_template(messages, tokenize=False)
    assert text == (
        "<s>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]What is 1 + 2?[/INST]" + TRACE + "</s>"
    )
    ids = loaded.apply_chat_template(messages, return_dict=True).input_ids
    assert ids.count(1) == 1
    assert ids[0] == 1
    assert ids[-1] == 2


def test_roles_must_alternate(loaded: PreTrainedTokenizerFast) -> None:
    message = {"role": "user", "content": "x"}
    with pytest.raises(TemplateError, match="must alternate"):
        loaded.apply_chat_template([message, message], tokenize=False)


def test_drill_and_trace_keep_the_same_distances() -> None:
    """Between operands and columns, and between columns and number: see make_drill."""
    problem = Problem(first=4231, second=1787, digits=4)
    columns, read = make_drill(problem, Random(1))
    drill = f"{columns.question}[/INST]{columns.answer}</s>[INST]{read.question}[/INST]"
    trace = f"{problem.question}[/INST]<think>\n{problem.thinking}\n</think>\n"
    for end in ("+1+7=", None):
        counts = {
            len(TOKENIZER.encode(text.partition(end)[0] if end else text).ids)
            for text in (drill, trace)
        }
        assert len(counts) == 1


def test_pre_tokenizer_is_tekkens(directory: Path) -> None:
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    split, byte_level = document["pre_tokenizer"]["pretokenizers"]
    assert split["pattern"] == {"Regex": TEKKEN_PATTERN}
    assert split["behavior"] == "Isolated"
    assert (byte_level["add_prefix_space"], byte_level["use_regex"]) == (False, False)


def test_same_bytes_twice(directory: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (directory / path.name).read_bytes()
