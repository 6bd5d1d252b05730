"""The logits of a GGUF for token ids, from llama.cpp's own library, as the server computes them."""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import llama_cpp
import numpy as np

from pipeline.errors import StageError

# Tokens that are read at a time; their logits are held in memory.
BATCH_TOKENS = 64

_silence = llama_cpp.llama_log_callback(lambda level, text, data: None)


class Reader:
    """One loaded model and its context; `open_reader` makes and frees it."""

    def __init__(self, model: object, context: object, batch: llama_cpp.llama_batch) -> None:
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._context = context
        self._batch = batch

    def read(self, ids: Sequence[int], wanted: Sequence[bool]) -> Iterator[np.ndarray]:
        """Yield float32 logits of the next token, (n, vocabulary), after each wanted id, in order.

        The ids are a whole sequence: nothing of an earlier one is seen.
        """
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        for start in range(0, len(ids), BATCH_TOKENS):
            part = range(start, min(start + BATCH_TOKENS, len(ids)))
            self._fill(ids, wanted, part)
            if llama_cpp.llama_decode(self._context, self._batch):
                raise StageError(
                    "the model cannot read its input",
                    on=f"tokens {part.start} to {part.stop}",
                    why="llama.cpp refused to decode them",
                    then="free memory and build again; a damaged file is found by `verify`",
                )
            found = [self._copy_logits(n - start) for n in part if wanted[n]]
            if found:
                yield np.stack(found)

    def _fill(self, ids: Sequence[int], wanted: Sequence[bool], part: range) -> None:
        self._batch.n_tokens = len(part)
        for place, number in enumerate(part):
            self._batch.token[place] = ids[number]
            self._batch.pos[place] = number
            self._batch.n_seq_id[place] = 1
            self._batch.seq_id[place][0] = 0
            self._batch.logits[place] = int(wanted[number])

    def _copy_logits(self, place: int) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, (self.vocabulary,)).copy()


@contextmanager
def open_reader(path: Path, *, longest: int, threads: int = 0) -> Iterator[Reader]:
    """Load the file for sequences of up to `longest` ids; `threads` 0 leaves them to llama.cpp.

    Raises StageError when llama.cpp cannot load it.
    """
    llama_cpp.llama_log_set(_silence, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(
        str(path).encode(), llama_cpp.llama_model_default_params()
    )
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = longest
    settings.n_batch = settings.n_ubatch = min(BATCH_TOKENS, longest)
    if threads:
        settings.n_threads = settings.n_threads_batch = threads
    context = model and llama_cpp.llama_init_from_model(model, settings)
    try:
        if not context:
            raise StageError(
                "llama.cpp does not load this file",
                on=path.name,
                why="it is damaged, or there is too little memory",
                then="free memory and build again; a damaged file is found by `verify`",
            )
        batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        try:
            yield Reader(model, context, batch)
        finally:
            llama_cpp.llama_batch_free(batch)
    finally:
        if context:
            llama_cpp.llama_free(context)
        if model:
            llama_cpp.llama_model_free(model)
