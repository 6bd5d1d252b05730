"""`python -m pipeline.sft.gpu_check [DEVICE]`: what training needs of a GPU, on a small model.

A line PASS or FAIL each: the device (cuda, or cpu to try the check itself), a base loaded in NF4,
a kernel of attention that holds no score per pair of tokens, and one optimizer step, twice, which
must give the same adapter to the bit.
"""

import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import PreTrainedModel

from pipeline.demo.pretrain import make_model
from pipeline.demo.shape import make_config
from pipeline.sft.adapter_files import read_adapter_tensors
from pipeline.sft.attention import check_attention
from pipeline.sft.method import make_adapted
from pipeline.sft.model import make_repeatable, on_gpu, read_base, silence_libraries
from pipeline.sft.names import PROJECTIONS, QLORA, ZERO
from pipeline.sft.options import Options

_OPTIONS = Options(
    method=QLORA,
    rank=16,
    alpha=16.0,
    rslora=False,
    init=ZERO,
    dropout=0.0,
    target_modules=PROJECTIONS,
    modules_to_save=(),
    learning_rate=1e-4,
    embedding_learning_rate=0.0,
    warmup_steps=0,
    schedule="constant_with_warmup",
    optimizer="adamw",
    weight_decay=0.0,
    neftune_alpha=0.0,
    batch_size=2,
    gradient_accumulation=1,
    gradient_checkpointing=True,
    activation_offload=False,
    pack_tokens=0,
    max_steps=1,
    epochs=1.0,
    max_grad_norm=1.0,
    seed=1,
    eval_rows=1,
    checkpoint_steps=0,
    patience=0,
    best_by="loss",
    processes=1,
    sharding="none",
    deepspeed="",
    cpu_threads=1,
    report_to="",
    hosts="1",
    host="0",
    address="",
)
_TOKENS = 128


def check_device(device: str) -> str:
    """Return what computes here. AssertionError when it is not the device."""
    assert on_gpu() == (device == "cuda"), f"this image computes on the {_name_device()}"
    return _name_device()


def _name_device() -> str:
    if not on_gpu():
        return "CPU: no CUDA device is visible"
    found = torch.cuda.get_device_properties(0)
    return (
        f"{found.name}, compute capability {found.major}.{found.minor},"
        f" {found.total_memory / 1e9:.1f} GB, CUDA {torch.version.cuda}, torch {torch.__version__}"
    )


def check_base(text: Path) -> str:
    """Return how the base was loaded. AssertionError when it is not in NF4."""
    model = read_base(text, QLORA)
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]
    assert layers, "no layer is quantized"
    assert all(layer.weight.quant_state.quant_type == "nf4" for layer in layers), "not NF4"
    held = sum(layer.weight.numel() for layer in layers)
    return f"{len(layers)} layers in NF4, {held:,} bytes, on {layers[0].weight.device}"


def check_kernels(text: Path) -> str:
    """Return which kernels take the model's attention. StageError when none does."""
    found = check_attention(read_base(text, QLORA))
    return "; ".join(f"rows {rows}: {' or '.join(kernels)}" for rows, kernels in found.items())


def check_step(text: Path) -> str:
    """Return what one optimizer step did. AssertionError when it did nothing, or not the same."""
    first, loss = _take_step(read_base(text, QLORA))
    second, _ = _take_step(read_base(text, QLORA))
    changed = [name for name in first if "lora_B" in name and first[name].any()]
    assert changed, "no matrix B has moved"
    assert all(torch.equal(first[name], second[name]) for name in first), (
        "two steps from one start differ"
    )
    peak = f", {torch.cuda.max_memory_allocated() / 1e6:.0f} MB at most" if on_gpu() else ""
    return f"loss {loss:.3f}, {len(changed)} matrices moved, twice the same bits{peak}"


def _take_step(base: PreTrainedModel) -> tuple[dict[str, torch.Tensor], float]:
    """Return the adapter after one step of AdamW on random tokens, and the loss before it."""
    model = make_adapted(base, _OPTIONS)
    generator = torch.Generator().manual_seed(1)
    shape = (_OPTIONS.batch_size, _TOKENS)
    ids = torch.randint(0, base.config.vocab_size, shape, generator=generator).to(base.device)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_OPTIONS.learning_rate)
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss), f"the loss is {loss.item()}"
    return read_adapter_tensors(model), loss.item()


def main(argv: Sequence[str]) -> int:
    """Try everything; return 0 when all passed."""
    make_repeatable(_OPTIONS.cpu_threads)
    silence_libraries()
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder)
        make_model(make_config(256)["text_config"], seed=1).bfloat16().save_pretrained(text)
        checks = (
            ("device", partial(check_device, argv[0] if argv else "cuda")),
            ("NF4 load", partial(check_base, text)),
            ("attention", partial(check_kernels, text)),
            ("optimizer step", partial(check_step, text)),
        )
        for name, check in checks:
            try:
                verdict, told = "PASS", check()
            # Whatever the libraries raise is the answer.
            except Exception as error:
                verdict, told, passed = "FAIL", f"{type(error).__name__}: {error}", False
            sys.stdout.write(f"{verdict} {name}: {told}\n")
            sys.stdout.flush()
            if not passed:
                break
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
