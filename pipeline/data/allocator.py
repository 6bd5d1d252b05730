"""How this process keeps small free blocks of memory: apart, ready to be taken again.

The tokenizer takes thousands of small blocks for a text and gives them back. glibc joins them to
their neighbours and cuts them anew for the next text, which is a fifth of the tokenizer's time.
Larger requests join them still, so that memory does not grow.
"""

import ctypes

# mallopt(3): the size up to which blocks are kept apart, and the greatest that there may be.
_M_MXFAST, _MOST_BYTES = 1, 20 * ctypes.sizeof(ctypes.c_size_t)


def keep_small_blocks() -> bool:
    """Set it for this process and those forked from it; False where the C library has no such
    setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_M_MXFAST, _MOST_BYTES) == 1
