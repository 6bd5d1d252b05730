"""Small tokenizers with the control tokens of each family, and conversations written by hand.

A token's id is its place in the list of control tokens; the 256 bytes follow, as in `tiny_text`.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.data.rendering import Rendered
from pipeline.data.templates import BUILT_IN
from tests.tiny_text import CONTROL_TOKENS as TINY
from tests.tiny_text import byte_alphabet, byte_ids

MISTRAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("[TOOL_CONTENT]", "[ARGS]", "[THINK]", "[/THINK]"),
)
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA_3 = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>"),
)
GEMMA = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")

# Control tokens, BOS and EOS of each family's tokenizers.
FAMILIES = {
    "mistral-v3": (MISTRAL, "<s>", "</s>"),
    "mistral-v3-tekken": (MISTRAL, "<s>", "</s>"),
    "mistral-v7": (MISTRAL, "<s>", "</s>"),
    "mistral-v7-tekken": (MISTRAL, "<s>", "</s>"),
    "mistral-v13": (MISTRAL, "<s>", "</s>"),
    "chatml": (CHATML, None, "<|im_end|>"),
    "qwen": (CHATML, None, "<|im_end|>"),
    "llama-3": (LLAMA_3, "<|begin_of_text|>", "<|eot_id|>"),
    "gemma": (GEMMA, "<bos>", "<eos>"),
}


def write_family(folder: Path, template: str) -> None:
    """Write a tokenizer of the template's family; it has no chat template of its own."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    controls, bos, eos = FAMILIES[template]
    vocabulary = {t: i for i, t in enumerate([*controls, *byte_alphabet()])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in controls])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "TokenizersBackend",
        "bos_token": bos,
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_chosen(folder: Path, template: str) -> None:
    """Write the family's tokenizer, and the template as a recipe chooses it."""
    from pipeline.checkpoint.chosen_template import choose_template

    write_family(folder, template)
    choose_template(folder, BUILT_IN[template])


def make_expected(template: str, prompts_and_answers: Sequence[Sequence[str]]) -> Rendered:
    """Return ids and mask of parts by turns: a prompt, an answer, a prompt, ... A part is a list of
    texts; one that is a control token's name is that token."""
    controls = FAMILIES[template][0]
    ids: list[int] = []
    mask: list[int] = []
    for number, texts in enumerate(prompts_and_answers):
        for text in texts:
            if text in controls:
                made = [controls.index(text)]
            else:
                made = [each - len(TINY) + len(controls) for each in byte_ids(text)]
            ids += made
            mask += [number % 2] * len(made)
    return Rendered(input_ids=ids, completion_mask=mask)
