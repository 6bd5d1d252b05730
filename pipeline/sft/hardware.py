"""What computes: on other hardware the same training may give other bits."""

import torch

from pipeline.sft.ranks import count_processes


def describe_device() -> str:
    """Return the GPU's model, or the instructions that PyTorch uses on this CPU, and how many
    processes have one each."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return f"{count} x {name}" if (count := count_processes()) > 1 else name
