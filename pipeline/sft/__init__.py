"""row -> labels -> loss -> adapter: everything that touches supervision runs in the train image."""

import logging

# On CPUs with AVX512-BF16 bitsandbytes warns at import that a kernel from the hub is missing; the
# hub is never asked here. Set before any module of this package imports PEFT.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
