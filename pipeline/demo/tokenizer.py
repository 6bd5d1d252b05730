"""A tokenizer of Mistral's tekken form for the demonstration, trained here in a moment.

Tekken: control tokens first, then the 256 single bytes in order, then merged tokens by rank, split
by tekken's own pattern, so that a digit is always a token of its own. The files are those of a
published Mistral checkpoint. The same inputs always give the same bytes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)

from pipeline.demo.shape import VOCABULARY_SIZE

# The pattern of every tekken.json since Mistral NeMo and of the tokenizer.json files made from it;
# llama.cpp's src/llama-vocab.cpp quotes it beside LLAMA_VOCAB_PRE_TYPE_TEKKEN.
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CONTROL_TOKENS: Mapping[int, str] = {
    0: "<unk>",
    1: "<s>",
    2: "</s>",
    3: "[INST]",
    4: "[/INST]",
    5: "[AVAILABLE_TOOLS]",
    6: "[/AVAILABLE_TOOLS]",
    7: "[TOOL_RESULTS]",
    8: "[/TOOL_RESULTS]",
    9: "[TOOL_CALLS]",
    10: "[IMG]",
    11: "<pad>",
    12: "[IMG_BREAK]",
    13: "[IMG_END]",
    14: "[PREFIX]",
    15: "[MIDDLE]",
    16: "[SUFFIX]",
    17: "[SYSTEM_PROMPT]",
    18: "[/SYSTEM_PROMPT]",
    19: "[TOOL_CONTENT]",
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    32: "[ARGS]",
    33: "[CALL_ID]",
    34: "[THINK]",
    35: "[/THINK]",
}
CONTROL_TOKEN_COUNT = 64
NAMED_TOKENS: Mapping[str, str] = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "unk_token": "<unk>",
}
MODEL_MAX_LENGTH = 1024

# Mistral's form: control tokens touch the text, roles alternate, the answer ends with EOS. No line
# break after the last tag: renderers disagree on whether it is part of the text.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- set turns = messages %}
{%- if messages and messages[0]['role'] == 'system' %}
    {{- '[SYSTEM_PROMPT]' + messages[0]['content'] + '[/SYSTEM_PROMPT]' }}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- for message in turns %}
    {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') %}
        {{- raise_exception('User and assistant must alternate after the system message.') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST]' + message['content'] + '[/INST]' }}
    {%- else %}
        {{- message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""

# What the merges are learnt from: the task's own words, and enough English to fill the vocabulary.
_TASK_TEXT = """\
What is 12 + 34?
Columns of 12 + 34 with any carries
Read
<think>
0+2+4=06
</think>
"""
_TASK_REPEATS = 20
_ENGLISH_TEXT = """\
A still turns wine into spirit: it is heated, the vapour rises, and what condenses is stronger than
what went in. Distilling a model works alike. A teacher thinks aloud, step by step, and writes down
every thought; a student reads thousands of such thoughts and learns to think in the same way. The
student is smaller and faster, and with some care it is nearly as good at the one thing that it was
taught. Nothing that matters is left to chance here: the words, the numbers, the order of the rows
and the seed that starts the weights are all written down, so that the same work gives the same
result on the same machine. When something is different, then something else was different before,
and it can be found. Adding two numbers by hand is an old and useful example. You start with the
column on the right, add the two figures, write the last figure of the sum and carry the rest to the
next column on the left. Children learn first what seven and eight make, and only then how a carry
is taken along; this small model learns the pieces first too, and then how to put them together.
"""


def make_tokenizer() -> Tokenizer:
    """Return the tokenizer, trained on the text above."""
    tokens = _train_merged_tokens(VOCABULARY_SIZE - CONTROL_TOKEN_COUNT - 256)
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {token: 256 + index for index, token in enumerate(tokens)}
    controls = [CONTROL_TOKENS.get(i, f"<SPECIAL_{i}>") for i in range(CONTROL_TOKEN_COUNT)]
    return build_tokenizer(controls, ranks)


def build_tokenizer(controls: Sequence[str], ranks: Mapping[bytes, int]) -> Tokenizer:
    """Return the tokenizer of tekken's form with these control tokens and ranked tokens."""
    letters = _map_bytes_to_letters()
    vocabulary = {control: index for index, control in enumerate(controls)}
    for token, rank in ranks.items():
        vocabulary[_spell(token, letters)] = len(controls) + rank
    merges = [
        (_spell(left, letters), _spell(right, letters)) for left, right in _list_merges(ranks)
    ]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _make_pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(control, special=True) for control in controls])
    return tokenizer


def _make_pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(TEKKEN_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _train_merged_tokens(count: int) -> list[bytes]:
    """Return `count` tokens of two bytes and more, in the order in which they were learnt."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _make_pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator([_TASK_TEXT] * _TASK_REPEATS + [_ENGLISH_TEXT], trainer)
    bytes_of = {letter: byte for byte, letter in _map_bytes_to_letters().items()}
    learnt = sorted(learner.get_vocab().items(), key=lambda entry: entry[1])
    merged = [bytes(bytes_of[letter] for letter in token) for token, _ in learnt if len(token) > 1]
    assert len(merged) == count, "the text is too short to fill the vocabulary"
    return merged


def _list_merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Return every way to merge two tokens into a third, by the third's rank.

    Tekken merges by the rank of the result, so a token may arise from any of its halves; the
    tokenizer.json files that Mistral publishes list them all.
    """
    merges = []
    for token in ranks:
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in halves if left in ranks and right in ranks]
        merges += sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    return merges


def _map_bytes_to_letters() -> dict[int, str]:
    """Return GPT-2's printable letter for each byte: itself where it is printable, else the next
    letter from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(0x100 + index) for index, byte in enumerate(others)}


def _spell(token: bytes, letters: Mapping[int, str]) -> str:
    return "".join(letters[byte] for byte in token)


def write_tokenizer(out: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write the files of a tokenizer, of make_tokenizer's if none is given.

    tokenizer.json, tokenizer_config.json, special_tokens_map.json, chat_template.jinja.
    """
    text = (tokenizer or make_tokenizer()).to_str(pretty=True)
    (out / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {
        "add_prefix_space": False,
        "backend": "tokenizers",
        "clean_up_tokenization_spaces": False,
        "model_max_length": MODEL_MAX_LENGTH,
        "tokenizer_class": "TokenizersBackend",
    }
    _write_json(out / "tokenizer_config.json", settings | dict(NAMED_TOKENS))
    _write_json(out / "special_tokens_map.json", NAMED_TOKENS)
    (out / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
