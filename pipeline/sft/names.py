"""What a recipe calls methods, starts, optimizers and modules. Standard library alone.

Apart from the recipe's fields, so that a change of their wording trains nothing anew.
"""

LORA, QLORA, FULL = "lora", "qlora", "full"
METHODS = (LORA, QLORA, FULL)

ZERO, GAUSSIAN, PISSA, LOFTQ = "zero", "gaussian", "pissa", "loftq"
INITS = (ZERO, GAUSSIAN, PISSA, LOFTQ)

ADAMW, ADAMW_8BIT, PAGED_ADAMW_8BIT = "adamw", "adamw_8bit", "paged_adamw_8bit"
OPTIMIZERS = (ADAMW, ADAMW_8BIT, PAGED_ADAMW_8BIT)

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# What method "full" trains with all the rest, and what may be trained whole beside an adapter.
EMBED_TOKENS, LM_HEAD = "embed_tokens", "lm_head"
EMBEDDINGS = (EMBED_TOKENS, LM_HEAD)

# What each process holds of the model: all of it, or a part of every weight.
NONE, FSDP = "none", "fsdp"
SHARDINGS = (NONE, FSDP)
