"""The gate for numbers: a GGUF in BF16 answers as transformers does with the same weights.

Names and shapes cannot show a permutation that went wrong or a rotary setting that was lost; logits
do. Both run on this CPU, transformers in float32, so only a small model is asked.
"""

from math import prod
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from pipeline.checkpoint.llama_logits import open_reader
from pipeline.checkpoint.weights import TextWeights
from pipeline.errors import StageError
from pipeline.log import say

# Above this the comparison would need gigabytes.
MAX_PARAMETERS = 64_000_000

# The measured distance of the flagship's file is 3e-4; a lost setting gives 1e-1 and more.
MAX_NMSE = 1e-3

_PROMPTS = (
    "What is 4231 + 1787?",
    "def f(x):\n\n\treturn x  # 3.14 != 10**6\r\n",
    "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all; 1,299.00.",
)


def check_logits(path: Path, weights: TextWeights, directory: Path) -> int:
    """Return of how many prompts the logits are below MAX_NMSE, 0 for a model that is too large.

    `directory` holds the weights' config and tokenizer. Raises StageError when the file's logits
    are not those of the weights.
    """
    if sum(prod(shape) for shape in weights.shapes.values()) > MAX_PARAMETERS:
        return 0
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompts = [tokenizer.encode(text, add_special_tokens=False) for text in _PROMPTS]
    distance = _find_distance(_ask_llama(path, prompts), _ask_transformers(weights, prompts))
    say(f"logits against transformers: NMSE {distance:.1e}, at most {MAX_NMSE:.0e} allowed")
    if not distance < MAX_NMSE:
        raise StageError(
            "the GGUF does not answer as the checkpoint does",
            on=f"logits of {len(prompts)} prompts",
            why=f"their normalized mean square error is {distance:.1e}; {MAX_NMSE:.0e} is allowed",
            then="this is a fault of the converter or of an unusual config: report it",
        )
    return len(prompts)


def _ask_transformers(weights: TextWeights, prompts: list[list[int]]) -> list[np.ndarray]:
    values = dict(weights.config)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tensors = {
        name: weights.read_rows(name, 0, shape[0]).float() for name, shape in weights.shapes.items()
    }
    left = model.load_state_dict(tensors, strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    assert set(left.missing_keys) <= tied and not left.unexpected_keys, left
    model.tie_weights()
    with torch.inference_mode():
        return [model(torch.tensor([ids])).logits[0].numpy() for ids in prompts]


def _ask_llama(path: Path, prompts: list[list[int]]) -> list[np.ndarray]:
    with open_reader(path, longest=max(len(ids) for ids in prompts)) as reader:
        return [np.concatenate(list(reader.read(ids, [True] * len(ids)))) for ids in prompts]


def _find_distance(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """Return sum((found - expected)^2) / sum(expected^2) over all prompts."""
    pairs = list(zip(found, expected, strict=True))
    wrong = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in pairs)
    return wrong / sum(float(np.square(b, dtype=np.float64).sum()) for _, b in pairs)
