"""Shape + how it is trained -> bytes of device memory, part by part, and of host memory.

P stands for the parameters of the projections, W for those of everything else (embeddings, head,
norms), R for trained ones, T for the tokens of a micro-batch, L layers, H hidden, F feed-forward, Q
and K the widths of queries and of keys, V vocabulary. docs/plan.md has the formulas with their
errors. What depends on the allocator or the driver is a constant here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.estimate.shape import Shape
from pipeline.recipe.recipe import Recipe

# bitsandbytes' NF4: half a byte; an 8-bit scale for each 64; a float32 for each 256 of those.
_NF4_BLOCK, _SCALE_BLOCK = 64, 256

# cuBLAS workspaces, kernels and the driver's own, of a process that trains.
_CONTEXT_BYTES = 600_000_000
# What the allocator holds beyond what is asked for, with expandable segments: of all that comes and
# goes while training, weights not among it.
_FRAGMENTATION = 0.05

# Python with torch, transformers, PEFT and TRL imported, measured on a CPU; with CUDA's libraries.
_PROCESS_BYTES = {True: 3_500_000_000, False: 570_000_000}

# AdamW's two moments in float32; in 8-bit numbers with a float32 scale for each 256. Paged ones
# count as if they stayed.
_SMALL_MOMENTS = 2 * (1 + 4 / 256)
_OPTIMIZER_BYTES = {
    "adamw": 8.0,
    "adamw_8bit": _SMALL_MOMENTS,
    "paged_adamw_8bit": _SMALL_MOMENTS,
}

# Tokens and vocabulary of a tile of TRL's fused head (trl/kernels/chunked_logprob.py): logits never
# exist in full. A GPU folds a tile in place; a CPU takes four float32 copies of it.
_TILE_TOKENS, _TILE_VOCABULARY = 4096, 32768
_TILE_BYTES = {True: 2, False: 20}


@dataclass(frozen=True, kw_only=True)
class TrainingForm:
    """What memory and time of training follow from, beside the shape.

    `sequence` is the longest row or pack, `offloads` whether kept activations wait in host memory,
    `whole_modules` how many of embeddings and output head are trained beside the adapter, `packs`
    whether the longest is a pack.
    """

    method: str
    rank: int
    target_modules: tuple[str, ...]
    batch_size: int
    accumulation: int
    sequence: int
    optimizer: str
    checkpointing: bool
    offloads: bool
    on_gpu: bool
    whole_modules: int = 0
    packs: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch of the longest rows."""
        return self.batch_size * self.sequence


@dataclass(frozen=True, kw_only=True)
class TrainMemory:
    """`parts` are those of the device (of the host, where the CPU trains) at the peak, in bytes;
    `layer_bytes` and `logits_bytes` are never there together: `working_set` is the larger."""

    parts: Mapping[str, int]
    layer_bytes: int
    logits_bytes: int
    host_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(self.parts.values())


def make_training_form(recipe: Recipe) -> TrainingForm:
    """Return how the recipe trains."""
    train = recipe.train
    on_gpu = train.accelerator != "cpu"
    return TrainingForm(
        method=train.method,
        rank=train.rank,
        target_modules=train.target_modules,
        batch_size=train.batch_size,
        # What several processes share is computed side by side.
        accumulation=max(train.gradient_accumulation // train.processes, 1),
        sequence=max(recipe.dataset.sequence_length, train.pack_tokens),
        optimizer=train.optimizer,
        checkpointing=train.gradient_checkpointing,
        offloads=train.activation_offload,
        on_gpu=on_gpu,
        whole_modules=len(train.modules_to_save),
        packs=train.pack_tokens > recipe.dataset.sequence_length,
    )


def count_trainable(shape: Shape, form: TrainingForm) -> int:
    """Return the trained parameters: two matrices of that rank at each adapted projection."""
    if form.method == "full":
        return shape.count_parameters()
    projections = shape.list_projections()
    adapted = sum(form.rank * sum(projections[name]) for name in form.target_modules)
    return shape.layers * adapted + form.whole_modules * shape.vocabulary * shape.hidden


def model_training(shape: Shape, form: TrainingForm) -> TrainMemory:
    """Return what training takes at its peak."""
    trained = count_trainable(shape, form)
    layer, logits = _model_layer(shape, form), _model_logits(shape, form)
    kept = _model_kept(shape, form)
    moving = {
        # A fully trained model is held once: its weights are what is trained.
        "adapters": 0 if form.method == "full" else 4 * trained,
        "gradients": 4 * trained,
        "optimizer": int(_OPTIMIZER_BYTES[form.optimizer] * trained),
        "activations": 0 if form.offloads else kept,
        "working_set": max(layer, logits),
    }
    parts = _list_weights(shape, form) | moving
    if form.on_gpu:
        parts["context"] = _CONTEXT_BYTES
        parts["fragmentation"] = int(_FRAGMENTATION * sum(moving.values()))
        host = _PROCESS_BYTES[True] + 2 * _find_largest(shape) + (kept if form.offloads else 0)
    else:
        parts["process"] = _PROCESS_BYTES[False]
        host = sum(parts.values())
    return TrainMemory(parts=parts, layer_bytes=layer, logits_bytes=logits, host_bytes=host)


def with_sequence(form: TrainingForm, sequence: int) -> TrainingForm:
    """Return the same training of rows that long."""
    return replace(form, sequence=sequence)


def _list_weights(shape: Shape, form: TrainingForm) -> dict[str, int]:
    projections = shape.count_projections()
    wide = shape.count_parameters() - projections
    if form.method == "qlora":
        scales = -(-projections // _NF4_BLOCK)
        return {
            "weights_4bit": projections // 2,
            "scales": scales + 4 * -(-scales // _SCALE_BLOCK),
            "weights_16bit": 2 * wide,
        }
    # What is trained is float32, and so is everything on a CPU.
    width = 2 if form.on_gpu and form.method != "full" else 4
    return {"weights": width * (projections + wide)}


def _model_kept(shape: Shape, form: TrainingForm) -> int:
    """Return what the forward pass keeps for the backward pass.

    With checkpointing the input of each layer (T H each), else all that one layer keeps.
    """
    width = _find_width(form)
    if form.checkpointing:
        return width * form.tokens * shape.hidden * shape.layers
    return form.tokens * _count_kept(shape) * width * shape.layers


def _model_layer(shape: Shape, form: TrainingForm) -> int:
    """Return what one layer takes while its gradients are made: what it keeps, three gradients as
    wide as the feed-forward, and, of 4-bit weights, the largest one in 16 bits."""
    width = _find_width(form)
    kept = _count_kept(shape) if form.checkpointing else 0
    unpacked = 2 * _find_largest_projection(shape) if form.method == "qlora" else 0
    return form.tokens * (kept + 3 * shape.ffn) * width + unpacked


def _count_kept(shape: Shape) -> int:
    """Return how many numbers of a token a layer keeps.

    Nineteen times the model's width around the two norms, which compute in float32; queries and
    keys before and after rotation, values and attention's result; gate, up, the activation and the
    product of the feed-forward.
    """
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return 19 * shape.hidden + 3 * queries + 3 * keys + 4 * shape.ffn


def _model_logits(shape: Shape, form: TrainingForm) -> int:
    """Return what the loss takes: a tile of logits, the last hidden states and their gradient in
    float32 and in the width that is computed with."""
    tile = min(form.tokens, _TILE_TOKENS) * min(shape.vocabulary, _TILE_VOCABULARY)
    return _TILE_BYTES[form.on_gpu] * tile + 8 * form.tokens * shape.hidden


def _find_width(form: TrainingForm) -> int:
    """Return the bytes of a number that is computed with: BF16, or float32 on the CPU."""
    return 2 if form.on_gpu or form.method == "qlora" else 4


def _find_largest_projection(shape: Shape) -> int:
    return max(rows * columns for rows, columns in shape.list_projections().values())


def _find_largest(shape: Shape) -> int:
    """Return the bytes of the largest weight in BF16: weights are loaded one by one."""
    return 2 * max(_find_largest_projection(shape), shape.vocabulary * shape.hidden)
