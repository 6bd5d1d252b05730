"""A text-only checkpoint of a few thousand parameters, with Mistral's control tokens.

Small enough that every id in a test can be written by hand: 12 control tokens at their usual ids,
then the 256 bytes in the byte-level alphabet's order (byte b has id 12 + its rank), no merges.
"""

import json
from pathlib import Path

CONTROL_TOKENS = (
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
)
BOS, EOS, INST, END_INST = 1, 2, 3, 4

# Mistral's form: no spaces around the marks, alternating roles demanded, EOS after each answer.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('roles must alternate user and assistant') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST]' + message['content'] + '[/INST]' }}
    {%- else %}
        {{- message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}"""


def byte_alphabet() -> list[str]:
    """Return GPT-2's printable stand-in for each byte, in its own order: printable ones first."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + n) for n in range(len(rest))]


def byte_ids(text: str) -> list[int]:
    """Return the ids of a text, computed here and not by the tokenizer."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = printable + [b for b in range(256) if b not in printable]
    return [len(CONTROL_TOKENS) + order.index(b) for b in text.encode("utf-8")]


def write_tokenizer(folder: Path, chat_template: str = CHAT_TEMPLATE) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {t: i for i, t in enumerate([*CONTROL_TOKENS, *byte_alphabet()])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in CONTROL_TOKENS]
    )
    # Published tokenizers add a BOS by themselves; rendering must not end up with two.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "TokenizersBackend",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def write_text_checkpoint(
    folder: Path,
    *,
    hidden_size: int = 64,
    seed: int = 0,
    vocabulary: int = len(CONTROL_TOKENS) + 256,
    tied: bool = False,
) -> None:
    """Write a random BF16 Ministral3 text model with its tokenizer."""
    import torch
    from transformers import Ministral3Config, Ministral3ForCausalLM

    torch.manual_seed(seed)
    config = Ministral3Config(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=hidden_size,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=CONTROL_TOKENS.index("<pad>"),
        tie_word_embeddings=tied,
        initializer_range=0.06,
        rope_parameters={
            "rope_type": "yarn",
            "type": "yarn",
            "rope_theta": 1e8,
            "factor": 48.0,
            "original_max_position_embeddings": 8192,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    )
    model = Ministral3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    write_tokenizer(folder)
