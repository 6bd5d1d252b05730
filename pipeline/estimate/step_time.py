"""Shape + form of training + GPU -> seconds of an optimizer step.

A model of two terms: arithmetic at a share of the card's peak, and the traffic of unpacking 4-bit
weights, which are written out in 16 bits at each pass over a layer. The share is assumed, not
measured: docs/plan.md says what it was held against.
"""

from pipeline.estimate.gpus import Gpu
from pipeline.estimate.shape import Shape
from pipeline.estimate.training import TrainingForm, count_trainable

# Of the peak of dense BF16.
UTILISATION = 0.45
# A 4-bit weight is read, written in 16 bits and read again.
_UNPACKED_BYTES = 0.516 + 2 + 2
# AdamW reads a weight, its gradient and two moments in float32, and writes all but the gradient.
_OPTIMIZER_TRAFFIC_BYTES = 28
# Of FlashAttention's backward pass, in forward passes.
_ATTENTION_BACKWARD = 2.5


def model_step_s(shape: Shape, form: TrainingForm, gpu: Gpu, *, row_tokens: float) -> float:
    """Return the seconds of one optimizer step on rows of so many tokens."""
    tokens = row_tokens * form.batch_size
    flops = tokens * count_token_flops(shape, form, row_tokens=row_tokens)
    seconds = flops / (gpu.bf16_flops * UTILISATION)
    if form.method == "qlora":
        passes = 3 if form.checkpointing else 2
        traffic = passes * _UNPACKED_BYTES * shape.count_projections()
        seconds += traffic / gpu.bandwidth_bytes_s
    update_s = _OPTIMIZER_TRAFFIC_BYTES * count_trainable(shape, form) / gpu.bandwidth_bytes_s
    return form.accumulation * seconds + update_s


def count_token_flops(shape: Shape, form: TrainingForm, *, row_tokens: float) -> float:
    """Return the operations for one token: two for each weight and pass.

    Forward, once more where layers are checkpointed, and backward once, since a frozen weight gets
    no gradient; twice where it does. Attention looks at half the row on average.
    """
    again = 1 if form.checkpointing else 0
    is_full = form.method == "full"
    head = shape.vocabulary * shape.hidden
    backward = 2 if is_full else 1
    weights = 2 * shape.count_projections() * (1 + again + backward) + 2 * head * (1 + backward)
    adapters = 0 if is_full else 2 * count_trainable(shape, form) * (3 + again)
    queries = shape.heads * shape.head_dim
    attention = 2 * queries * row_tokens * shape.layers * (1 + again + _ATTENTION_BACKWARD)
    return weights + adapters + attention
