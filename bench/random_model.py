"""A text model of any shape with random weights, its projections in NF4, made on the device.

Nothing is read and nothing is held twice: a projection is drawn, quantized and dropped before the
next one is drawn, so that a model of 24 billion parameters needs no more memory than it has in NF4.
"""

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from torch import nn
from transformers import Ministral3Config, Ministral3ForCausalLM

_STD = 0.02


def make_random_nf4(text_config: dict[str, Any], device: torch.device) -> Ministral3ForCausalLM:
    """Return the model: double-quantized NF4 projections, everything else in bfloat16."""
    settings = {name: value for name, value in text_config.items() if name != "model_type"}
    config = Ministral3Config(**settings, attn_implementation="sdpa")
    with torch.device("meta"):
        model = Ministral3ForCausalLM(config).bfloat16()
    generator = torch.Generator(device).manual_seed(1)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and "_proj" in name:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _quantize(module, generator, device))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta:
            owner = model.get_submodule(name.rpartition(".")[0])
            drawn = _draw(parameter.shape, generator, device)
            setattr(owner, name.rpartition(".")[2], nn.Parameter(drawn, requires_grad=False))
    # Its table of frequencies is a buffer that no checkpoint holds.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config).to(device)
    model.is_loaded_in_4bit = True  # PEFT asks
    return model


def _quantize(linear: nn.Linear, generator: torch.Generator, device: torch.device) -> Linear4bit:
    made = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=False,
        compute_dtype=torch.bfloat16,
        compress_statistics=True,
        quant_type="nf4",
        device="meta",
    )
    weight_OI = _draw((linear.out_features, linear.in_features), generator, device)
    made.weight = Params4bit(
        weight_OI, requires_grad=False, compress_statistics=True, quant_type="nf4", module=made
    ).to(device)
    made.support_avx512bf16_for_cpu = False  # as in pipeline.sft.model
    return made


def _draw(
    shape: tuple[int, ...] | torch.Size, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Return weights as a trained model has them: a matrix is small numbers, a norm is ones."""
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16, device=device)
    drawn = torch.empty(shape, dtype=torch.bfloat16, device=device)
    return drawn.normal_(std=_STD, generator=generator)
