"""The gate before a file is called a GGUF of a checkpoint.

Read back from the file itself: the architecture, every tensor's name and shape, the rotary settings
that make or break long context, the control tokens, the chat template byte for byte, and, through
llama.cpp's own tokenizer, the ids of texts that trip tokenizers up.
"""

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
from transformers import AutoTokenizer

from pipeline.checkpoint.llama_source import find_file_type, import_gguf, list_shapes
from pipeline.checkpoint.other_family import is_listed
from pipeline.checkpoint.text_config import read_config
from pipeline.checkpoint.text_tensors import FAMILIES, list_gguf_shapes
from pipeline.checkpoint.tokenizer_files import read_chat_template
from pipeline.errors import StageError
from pipeline.log import say

# key in config.rope_parameters -> key in the GGUF, after the architecture
_YARN_KEYS = {
    "rope_theta": "rope.freq_base",
    "factor": "rope.scaling.factor",
    "original_max_position_embeddings": "rope.scaling.original_context_length",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
    "mscale_all_dim": "rope.scaling.yarn_log_multiplier",
    "llama_4_scaling_beta": "attention.temperature_scale",
}

_CONTROL_TOKENS = {
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
    "pad_token_id": "tokenizer.ggml.padding_token_id",
}

# Llama 3's frequency factors, made by the converter from the config.
_MADE_TENSORS = {"rope_freqs.weight"}

_PROBES = (
    "What is 4231 + 1787?",
    "<think>\n1+7+0=08\n</think>\n6018",
    "def f(x):\n\n\treturn x  # 3.14 != 10**6\r\n",
    "I'VE been told: McDonald's iPhone costs 1,299.00 EUR!!!  \n \n  ",
    "Größe, naïve, Привет, МИР, 你好世界, 안녕하세요, مرحبا, 🦙👩‍👩‍👧 ❤️ → ∑x²",
)

# Where llama.cpp is known to differ from tekken: its expression (src/llama-vocab.cpp) knows neither
# combining marks nor case beyond ASCII. That costs tokens in such texts, and is said, not refused.
_KNOWN_TO_DIFFER = {
    "combining marks": "नमस्ते, e\u0301, สวัสดี",
    "camel case beyond ASCII": "приветМир, naïveÉcole",
}


# The binding makes a context even for a vocabulary, and llama.cpp then warns that it has no model.
_silence = llama_cpp.llama_log_callback(lambda level, text, data: None)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was found equal: tensors by name and shape, texts by their ids.

    `differences` names the texts where llama.cpp is known to differ, and does.
    """

    architecture: str
    tensors: int
    texts: int
    differences: tuple[str, ...]


def check_gguf(path: Path, checkpoint: Path, file_type: str) -> Checked:
    """Return what was checked; raise StageError unless the file is that checkpoint in that type."""
    reader = import_gguf().GGUFReader(path)
    config = read_config(checkpoint / "config.json")
    architecture = _read_value(reader, "general.architecture")
    if is_listed(config):
        _check_equal("general.architecture", architecture, FAMILIES[config["model_type"]][1])
        check_tensors(list_shapes(reader), list_gguf_shapes(config))
        _check_rope(reader, config, architecture)
    else:
        _check_present(reader, architecture)
    due = find_file_type(file_type)
    _check_equal("general.file_type", _read_value(reader, "general.file_type"), due)
    _check_control_tokens(reader, config)
    template = _read_value(reader, "tokenizer.chat_template")
    _check_equal("tokenizer.chat_template", template, read_chat_template(checkpoint))
    texts, differences = _check_tokenization(path, checkpoint)
    name = _read_value(reader, "general.name")
    say(f"{name}: {architecture}, {file_type}, {len(reader.tensors)} tensors, tokenizer equal")
    return Checked(
        architecture=architecture,
        tensors=len(reader.tensors),
        texts=texts,
        differences=differences,
    )


def _check_present(reader: Any, architecture: object) -> None:
    """Ask of a family that is not in the table what every model has."""
    _check_equal("general.architecture is there", bool(architecture), True)
    _check_equal("there are tensors", len(reader.tensors) > 0, True)


def check_tensors(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise StageError unless a file has exactly these tensors, beside those made of a config."""
    for name in sorted({*expected, *found} - _MADE_TENSORS):
        _check_equal(f"tensor {name}", found.get(name), expected.get(name))


def _check_rope(reader: Any, config: Mapping[str, Any], architecture: str) -> None:
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type") != "yarn":
        return
    for key, gguf_key in _YARN_KEYS.items():
        if key in rope:
            found = _read_value(reader, f"{architecture}.{gguf_key}")
            close = found is not None and abs(found - rope[key]) <= 1e-6 * abs(rope[key])
            _check_equal(f"{architecture}.{gguf_key}", rope[key] if close else found, rope[key])


def _check_control_tokens(reader: Any, config: Mapping[str, Any]) -> None:
    for key, gguf_key in _CONTROL_TOKENS.items():
        allowed = config.get(key)
        found = _read_value(reader, gguf_key)
        if isinstance(allowed, list) and found in allowed:
            continue
        if allowed is not None:
            _check_equal(gguf_key, found, allowed)


def _check_tokenization(path: Path, checkpoint: Path) -> tuple[int, tuple[str, ...]]:
    """Compare the ids that training sees with those that llama.cpp will make of the same text.

    Return how many texts are equal, and which known differences there are.
    """
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    theirs = llama_cpp.Llama(model_path=str(path), vocab_only=True, verbose=False)
    ours = AutoTokenizer.from_pretrained(checkpoint)
    control = " ".join(str(token) for _, token in sorted(ours.added_tokens_decoder.items())[:64])

    def tokenize(text: str) -> tuple[list[int], list[int]]:
        return (
            theirs.tokenize(text.encode(), add_bos=False, special=True),
            ours.encode(text, add_special_tokens=False),
        )

    texts = (*_PROBES, control)
    for text in texts:
        _check_equal(f"token ids of {text!r}", *tokenize(text))
    differences = []
    for what, text in _KNOWN_TO_DIFFER.items():
        found, expected = tokenize(text)
        if found != expected:
            differences.append(what)
            say(f"note: llama.cpp splits {what} otherwise than the model's tokenizer")
    theirs.close()
    return len(texts), tuple(differences)


def _read_value(reader: Any, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _check_equal(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise StageError(
            "the GGUF is not the checkpoint that it was made from",
            on=what,
            why=f"it is {str(found)[:200]}, and the checkpoint asks for {str(expected)[:200]}",
            then="this is a fault of the converter or of an unusual tokenizer: report it",
        )
