"""`ENV/bin/python -m bench.training_memory CONFIG`: what one training step allocates, counted.

ENV is the environment `train`; CONFIG is a base's config.json. The model's own classes, PEFT's
adapter, checkpointing and autocast run on tensors without data, and every allocation is counted as
PyTorch's allocator rounds it: sizes are those of a GPU, no GPU is needed. A few layers are enough,
since a layer more is one more kept input. What is not counted: 4-bit weights being unpacked, the
head and its loss, CUDA itself. JSON on stdout.
"""

import json
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

_BLOCK_BYTES = 512
_RANK = 16


class Allocations(TorchDispatchMode):
    """Counts the bytes of storages that operations make, now and at the most."""

    def __init__(self, known: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._sizes = {self._name(each): 0 for each in known}
        self.now_bytes = 0
        self.most_bytes = 0

    @staticmethod
    def _name(tensor: torch.Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor) and self._name(each) not in self._sizes:
                storage = each.untyped_storage()
                size = -(-storage.nbytes() // _BLOCK_BYTES) * _BLOCK_BYTES
                self._sizes[self._name(each)] = size
                self.now_bytes += size
                weakref.finalize(storage, self._free, self._name(each))
        self.most_bytes = max(self.most_bytes, self.now_bytes)
        return found

    def _free(self, name: int) -> None:
        self.now_bytes -= self._sizes.pop(name, 0)


def make_model(text: Mapping[str, Any], layers: int) -> torch.nn.Module:
    """Return the adapted model of so many layers, in BF16 with a float32 adapter, checkpointed."""
    values = {key: value for key, value in text.items() if key != "model_type"}
    config = AutoConfig.for_model(text["model_type"], **(values | {"num_hidden_layers": layers}))
    torch.set_default_dtype(torch.bfloat16)
    base = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    torch.set_default_dtype(torch.float32)
    # To swap a parameter for a moved one is what tensors without data cannot do; all is in place.
    upstream, torch.nn.Module.to = torch.nn.Module.to, lambda self, *args, **kwargs: self
    try:
        model = get_peft_model(
            base,
            LoraConfig(r=_RANK, target_modules="all-linear", bias="none", task_type="CAUSAL_LM"),
        )
    finally:
        torch.nn.Module.to = upstream
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return model


def count_step(text: Mapping[str, Any], layers: int, tokens: int) -> dict[str, int]:
    """Return the bytes that are kept for the backward pass, and the most that there are at once."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        model = make_model(text, layers)
        ids = torch.zeros((1, tokens), dtype=torch.long)
        known = [*model.parameters(), *model.buffers(), ids]
        with Allocations(known) as counted:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                body = model.get_base_model().model
                last = body(input_ids=ids, use_cache=False).last_hidden_state
            kept = counted.now_bytes
            last.sum().backward()
    return {"layers": layers, "tokens": tokens, "kept": kept, "most": counted.most_bytes}


def main(argv: Sequence[str]) -> int:
    """Count a few sizes of the model in a config.json."""
    config = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    cases = ((2, 2048), (4, 2048), (2, 8192))
    json.dump([count_step(text, layers, tokens) for layers, tokens in cases], sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
