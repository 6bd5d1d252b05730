"""NVIDIA GPUs that train and serve: memory, peak arithmetic, bandwidth.

Peaks are the makers' for dense BF16 with float32 sums, bandwidths theirs as well; `usable_bytes` is
the least that PyTorch was seen to report as a card's capacity, since driver and error correction
take some of what the box says.
"""

from dataclasses import dataclass

_GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """`nominal_gb` is what the card is sold as."""

    name: str
    nominal_gb: int
    usable_bytes: int
    bf16_flops: float
    bandwidth_bytes_s: float


def _gpu(name: str, nominal_gb: int, usable_gib: float, tflops: float, gb_s: float) -> Gpu:
    return Gpu(
        name=name,
        nominal_gb=nominal_gb,
        usable_bytes=int(usable_gib * _GIB),
        bf16_flops=tflops * 1e12,
        bandwidth_bytes_s=gb_s * 1e9,
    )


GPUS = (
    _gpu("RTX 3090", 24, 23.55, 71.0, 936),
    _gpu("RTX 4090", 24, 23.52, 165.2, 1008),
    _gpu("RTX 5090", 32, 31.36, 209.5, 1792),
    _gpu("L40S", 48, 44.34, 362.0, 864),
    _gpu("A100", 80, 79.14, 312.0, 2039),
    _gpu("H100", 80, 79.10, 989.4, 3350),
    _gpu("H200", 141, 139.72, 989.4, 4800),
)
