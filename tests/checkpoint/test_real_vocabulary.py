"""Mistral's published vocabulary goes through: llama.cpp makes the ids that the model learns.

Its 131,072 entries and their merges, in a tiny random model. The control tokens' names beyond those
of the demonstration are stand-ins, since tekken.json of this form has none.
"""

import ctypes
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers
from transformers import AutoTokenizer

from pipeline.checkpoint import gguf
from pipeline.checkpoint.llama_source import import_conversion
from pipeline.demo.tokenizer import CONTROL_TOKENS, build_tokenizer, write_tokenizer
from pipeline.engine.environment import read_envs_dir
from pipeline.estimate.base_config import read_config
from pipeline.estimate.gguf_metadata import count_string, sum_entries
from pipeline.estimate.gguf_size import measure_metadata
from pipeline.estimate.shape import parse_shape
from tests.checkpoint.planned_size import plan_gguf
from tests.checkpoint.tiny_families import write_family
from tests.tekken import Tekken, read_tekken

pytestmark = pytest.mark.convert

VOCABULARY_SIZE = 131_072
HIDDEN_SIZE = 256

PROBES = {
    "code": 'def f(x: int) -> str:\n\tif x != 10**6:\n\t\treturn f"{x:,}"  #\n\nclass E2(A): 1\r\n',
    "JSON": '{"key": [1, 2.5, null], "näme": "va\\"lue"}',
    "paths": "https://example.org/a/b?c=d&e=%20f#g // /* */ C:\\dir\\file.txt",
    "formula": "$\\frac{a}{b}\\leq\\sum_{i=0}^{n} x_i^2$ ∑x² ≠ ∞ → ∀ε>0",
    "runs of whitespace": f"a  b   c\t\td \n\n\n  e\n \t \n{' ' * 17}f\n\n\n\n\n\t\t\t\t\t\t   ",
    "unusual whitespace": "a\u00a0b\u2003c\u200bd\u3000e\ufefff\u0085g",
    "line ends": "a\r\nb\rc\n\rd\r\n\r\ne/\n//\r",
    "emoji": "🦙👩‍👩‍👧 ❤️ 👍🏽 🇩🇪 1️⃣",
    "CJK": "你好，世界！天地玄黃 日本語のテキスト、カタカナ 한국어 문장입니다.",
    "digits": "0 12 345 6789 1,299.00 3.14159 0x1F abc123def 2026-11-21 ٣٤٥ ²³ ½ Ⅷ",
    "accents": "Größe naïve façade Ångström Łódź señor İstanbul ÉCOLE œuvre Tiếng Việt",
    "camel case": "getHTTPResponse iPhone McDonald SCREAMING_CASE приветМир naïveÉcole",
    "scripts": "Привет, МИР! ΑΘΗΝΑ Ελλάδα שלום مرحبا ქართული ՀԱՅԵՐԵՆ",
    "apostrophes": "I'VE they'll don't L'ÉTÉ ’tis",
    "worked sum": "<think>\n1+7+0=08\n</think>\n6018",
    "control tokens": "<s>[SYSTEM_PROMPT]a[/SYSTEM_PROMPT][INST] b[/INST][THINK]c[/THINK]</s><pad>",
    "no control tokens": "[inst] [INST ] < /s> [[INST]] <SPECIAL_1000> [/ INST] </S>",
}

# llama.cpp's split knows no combining marks: such texts take more tokens than the model learnt.
MARKS = {
    "Devanagari": "नमस्ते दुनिया",
    "Thai": "สวัสดีชาวโลก",
    "vocalised Arabic": "بِسْمِ اللَّهِ",
    "decomposed accents": "e\u0301 n\u0303 Z\u0351\u036ba\u0349lgo",
}


@pytest.fixture(scope="module")
def tekken() -> Tekken:
    return read_tekken(read_envs_dir())


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tekken: Tekken) -> Path:
    folder = tmp_path_factory.mktemp("real-vocabulary") / "base"
    sizes = {"hidden_size": HIDDEN_SIZE, "num_hidden_layers": 1, "vocab_size": VOCABULARY_SIZE}
    write_family(folder, "ministral3", **sizes)
    count = tekken.control_count
    controls = [CONTROL_TOKENS.get(each, f"<SPECIAL_{each}>") for each in range(count)]
    write_tokenizer(folder, build_tokenizer(controls, tekken.ranks))
    return folder


@pytest.fixture(scope="module")
def published(base: Path) -> Any:
    """Return what the model is trained with."""
    return AutoTokenizer.from_pretrained(base)


@pytest.fixture(scope="module")
def converted(base: Path) -> Iterator[llama_cpp.Llama]:
    """Yield what the model is served with."""
    out = base.with_name("gguf")
    out.mkdir()
    options = gguf.Options(type="Q4_K_M", model_name="Tiny 7B", tensor_types=(), chat_template="")
    gguf.run({"base": base}, options, out)
    planned = plan_gguf(base, "Q4_K_M", name="Tiny 7B")
    assert (planned.size_bytes, planned.is_exact) == ((out / gguf.GGUF).stat().st_size, True)
    llama = llama_cpp.Llama(model_path=str(out / gguf.GGUF), vocab_only=True, verbose=False)
    yield llama
    llama.close()


def encode(tokenizer: Any, text: str, *, with_controls: bool) -> list[int]:
    split = not with_controls
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=split)
    return [int(each) for each in ids]


def tokenize(llama: llama_cpp.Llama, text: str, *, with_controls: bool) -> list[int]:
    return [int(each) for each in llama.tokenize(text.encode(), False, with_controls)]


def merge_by_rank(tekken: Tekken, text: str) -> list[int]:
    """Return tekken's ids of a text without control tokens, by its definition and without merges.

    In each piece of the split, the two neighbours whose sum has the lowest rank become one.
    """
    split = pre_tokenizers.Split(Regex(tekken.pattern), behavior="isolated")
    ids: list[int] = []
    for piece, _ in split.pre_tokenize_str(text):
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            sums = [left + right for left, right in zip(parts, parts[1:], strict=False)]
            best = min(
                range(len(sums)), key=lambda at: tekken.ranks.get(sums[at], len(sums[at]) << 32)
            )
            if sums[best] not in tekken.ranks:
                break
            parts[best : best + 2] = [sums[best]]
        ids += [tekken.control_count + tekken.ranks[part] for part in parts]
    return ids


def test_the_converter_knows_the_tokenizer(published: Any) -> None:
    """By its hash of the ids of a long text in many scripts: it is Mistral's own tokenizer."""
    assert len(published) == VOCABULARY_SIZE
    assert import_conversion().TextModel.get_vocab_base_pre(None, published) == "tekken"


def test_a_plan_without_the_files_takes_them_for_these(base: Path) -> None:
    """But for the chat template, which is any model's own."""
    config = read_config(str(base))
    shape = parse_shape(config.config, on=config.on)
    alone, whole = (
        measure_metadata(each, shape, name="x", planning=True).size_bytes
        for each in (replace(config, directory=None), config)
    )
    template = (base / "chat_template.jinja").read_text()
    assert whole - alone == sum_entries({"tokenizer.chat_template": count_string(template)})


@pytest.mark.parametrize("text", [*PROBES.values(), *MARKS.values()], ids=[*PROBES, *MARKS])
def test_the_merges_are_those_of_the_ranks(tekken: Tekken, published: Any, text: str) -> None:
    assert encode(published, text, with_controls=False) == merge_by_rank(tekken, text)


def test_every_entry_of_the_file_is_the_published_one(
    tekken: Tekken, converted: llama_cpp.Llama
) -> None:
    vocabulary = llama_cpp.llama_model_get_vocab(converted.model)
    assert llama_cpp.llama_vocab_n_tokens(vocabulary) == VOCABULARY_SIZE
    room = ctypes.create_string_buffer(1024)

    def read_piece(token: int) -> bytes:
        size = llama_cpp.llama_token_to_piece(vocabulary, token, room, len(room), 0, True)
        return room.raw[:size]

    found = {read_piece(tekken.control_count + rank): rank for rank in tekken.ranks.values()}
    assert found == tekken.ranks
    for token, text in CONTROL_TOKENS.items():
        assert read_piece(token) == text.encode()


@pytest.mark.parametrize("with_controls", [True, False], ids=["controls", "text"])
@pytest.mark.parametrize("text", PROBES.values(), ids=PROBES)
def test_the_ids_are_equal(
    published: Any, converted: llama_cpp.Llama, text: str, with_controls: bool
) -> None:
    expected = encode(published, text, with_controls=with_controls)
    assert tokenize(converted, text, with_controls=with_controls) == expected


def test_a_control_token_that_a_user_types_is_text(
    tekken: Tekken, converted: llama_cpp.Llama
) -> None:
    text = PROBES["control tokens"]
    typed = tokenize(converted, text, with_controls=False)
    assert min(typed) >= tekken.control_count
    assert converted.detokenize(typed) == text.encode()
    rendered = tokenize(converted, text, with_controls=True)
    assert [each for each in rendered if each < tekken.control_count] == [
        1,
        17,
        18,
        3,
        4,
        34,
        35,
        2,
        11,
    ]


@settings(max_examples=500)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["M", "Cn"]), max_size=40))
def test_any_text_without_combining_marks_has_equal_ids(
    published: Any, converted: llama_cpp.Llama, text: str
) -> None:
    expected = encode(published, text, with_controls=False)
    assert tokenize(converted, text, with_controls=False) == expected


@pytest.mark.parametrize("text", MARKS.values(), ids=MARKS)
def test_combining_marks_are_known_to_take_more_tokens(
    published: Any, converted: llama_cpp.Llama, text: str
) -> None:
    """When this fails, llama.cpp has learnt them: then the gate on a GGUF can ask for them."""
    found = tokenize(converted, text, with_controls=False)
    assert len(found) > len(encode(published, text, with_controls=False))
    assert converted.detokenize(found) == text.encode()


@pytest.mark.usefixtures("converted")
def test_the_differences_found_are_recorded(base: Path) -> None:
    checks = json.loads((base.with_name("gguf") / gguf.CHECKS).read_text())
    assert checks["tokenizer"] == {"equal_texts": 6, "known_differences": ["combining marks"]}
