"""The text-only checkpoint -> a model in memory, and the settings that make it compute repeatably.

On a GPU the base computes in bfloat16; on a CPU in float32, which holds every BF16 weight exactly
and is faster there. `qlora` keeps the base in NF4 with double quantization and computes in
bfloat16 on either; `full` holds float32, and the trainer's autocast computes in bfloat16 on a GPU.
"""

import os
import warnings
from pathlib import Path

import huggingface_hub.constants
import torch
from bitsandbytes.nn.modules import Linear4bit
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pipeline.sft.names import FULL, METHODS, QLORA


def on_gpu() -> bool:
    """Return whether this machine computes on a GPU."""
    return bool(torch.cuda.is_available())


def make_repeatable(cpu_threads: int) -> None:
    """Make the same run give the same bytes; an operation that cannot repeat raises."""
    # Read by cuBLAS when it starts; without it the next line makes every product raise.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.use_deterministic_algorithms(True, warn_only=False)
    # Only hides reads of uninitialised memory, and costs a pass over every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.set_num_threads(cpu_threads)
    # The fall-back that materialises all of attention must fail instead of taking the memory.
    torch.backends.cuda.enable_math_sdp(not on_gpu())


def silence_libraries() -> None:
    """Keep the libraries off the network, and their talk, bars and deprecations out of the log."""
    # TRL would report each run's shape; offline also ends every other question to the hub.
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # transformers warns about an argument that PEFT and TRL, at their pins, still pass to it.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _make_quantization(method: str) -> BitsAndBytesConfig | None:
    if method != QLORA:
        assert method in METHODS, f"the recipe let method {method!r} through"
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def read_base(text: Path, method: str) -> PreTrainedModel:
    """Return the text-only model: attention by SDPA, shards loaded one by one."""
    # Several workers would hold several shards in BF16 at once: more than a 24 GB card has.
    os.environ["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
    quantization = _make_quantization(method)
    half = quantization is not None or (on_gpu() and method != FULL)
    model = AutoModelForCausalLM.from_pretrained(
        text,
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation="sdpa",
        quantization_config=quantization,
        # With several processes, each has chosen its own before.
        device_map={"": torch.cuda.current_device() if on_gpu() else "cpu"},
        local_files_only=True,
    )
    assert model.config._attn_implementation == "sdpa", "another attention would be used"
    _keep_differentiable(model)
    return model


def _keep_differentiable(model: PreTrainedModel) -> None:
    """Turn off the CPU layout that bitsandbytes repacks a 4-bit weight into.

    On CPUs with AVX512-BF16 the first forward in eval mode repacks for good, and the kernel for
    that layout has no backward: from then on a layer passes no gradient to the layers before it,
    with no more than a warning.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def read_adapted(text: Path, adapter: Path) -> PeftModel:
    """Return the 16-bit base with the adapter beside it, for inference only."""
    model = PeftModel.from_pretrained(read_base(text, "lora"), adapter, local_files_only=True)
    return model.eval()
