"""Messages -> token ids and completion mask, born together from the chat template's own text.

The prompt is the template's rendering with the generation prompt; the full conversation is its
rendering with the assistant turn; the completion is what the second adds to the first. Nothing
searches for a marker. Every row is checked: the joined ids are the tokenizer's ids of the whole,
one BOS, the EOS supervised, the assistant's words inside the completion as they were given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from pipeline.errors import StageError

Message = dict[str, str]

# What a sandboxed template can raise: its own words, or Python's about a value it did not expect.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, LookupError, ArithmeticError)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One conversation: `completion_mask[i]` is 1 where `input_ids[i]` is supervised."""

    input_ids: list[int]
    completion_mask: list[int]


def read_tokenizer(text: Path) -> PreTrainedTokenizerFast:
    """Return the checkpoint's tokenizer exactly as tokenizer.json describes it.

    The plain class on purpose: AutoTokenizer may rebuild the pre-tokenizer from a model's name or
    hand over to mistral-common, and the GGUF is made from the same tokenizer.json.
    """
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(
        text, local_files_only=True
    )
    return tokenizer


def make_messages(problem: str, assistant_text: str) -> list[Message]:
    """Return the conversation that one row teaches."""
    return [
        {"role": "user", "content": problem},
        {"role": "assistant", "content": assistant_text},
    ]


def _bad_row(what: str, *, on: str, why: str) -> StageError:
    return StageError(what, on=on, why=why, then="correct the row or the chat template")


@lru_cache(maxsize=4)
def _read_control_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    decoder = tokenizer.added_tokens_decoder
    return frozenset(i for i, t in decoder.items() if t.special) | set(tokenizer.all_special_ids)


def tokenize(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Return the ids of a text that already holds its control tokens; none are added."""
    ids: list[int] = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], *, bare: bool) -> str:
    """Return the ids' text; `bare` leaves the control tokens out."""
    text: str = tokenizer.backend_tokenizer.decode(list(ids), skip_special_tokens=bare)
    return text


def render_prompt(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, on: str
) -> str:
    """Return the template's text of the messages, ready for the assistant's turn."""
    return _apply_template(tokenizer, messages, on=on, add_generation_prompt=True)


def render_conversation(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, on: str
) -> str:
    """Return the template's text of messages that end in the assistant's turn."""
    return _apply_template(tokenizer, messages, on=on, add_generation_prompt=False)


def _apply_template(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[Message],
    *,
    on: str,
    add_generation_prompt: bool,
) -> str:
    try:
        rendered = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except _TEMPLATE_ERRORS as error:
        raise _bad_row(
            "the chat template fails", on=on, why=str(error) or type(error).__name__
        ) from error
    assert isinstance(rendered, str)
    return rendered


def refuse_control_tokens(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, on: str
) -> None:
    """Raise StageError where a text would be read as a control token instead of as text."""
    control_ids = _read_control_ids(tokenizer)
    for message in messages:
        for token_id in tokenize(tokenizer, message["content"]):
            if token_id in control_ids:
                raise _bad_row(
                    f"the {message['role']}'s text contains a control token",
                    on=on,
                    why=f"{tokenizer.convert_ids_to_tokens(token_id)!r} would steer the model",
                )


def _check(
    tokenizer: PreTrainedTokenizerFast, prompt_ids: list[int], completion_ids: list[int], on: str
) -> None:
    bos_id, eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    bos_count = (prompt_ids + completion_ids).count(bos_id) if bos_id is not None else 1
    if bos_count != 1 or (bos_id is not None and prompt_ids[0] != bos_id):
        raise _bad_row(
            "a row does not begin with its only BOS", on=on, why=f"{bos_count} BOS tokens are there"
        )
    if eos_id not in completion_ids:
        raise _bad_row(
            "the EOS is not supervised",
            on=on,
            why="the chat template does not end the assistant's turn, so it would never stop",
        )


def render(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], *, on: str) -> Rendered:
    """Return ids and mask of a conversation that ends in the assistant's turn to be learnt.

    Raises StageError, naming `on`, for a failing template, control tokens in a text, or a
    template whose rendering cannot be split into prompt and completion.
    """
    refuse_control_tokens(tokenizer, messages, on=on)
    prompt = render_prompt(tokenizer, messages[:-1], on=on)
    full = render_conversation(tokenizer, messages, on=on)
    if not full.startswith(prompt):
        raise _bad_row(
            "the chat template writes another prompt once the answer is there",
            on=on,
            why=f"prompt {prompt[-80:]!r} is no beginning of {full[:400]!r}",
        )
    completion = full[len(prompt) :]
    if messages[-1]["content"] not in completion:
        raise _bad_row(
            "the chat template changes the assistant's text", on=on, why=f"wrote {completion!r}"
        )
    prompt_ids, completion_ids = tokenize(tokenizer, prompt), tokenize(tokenizer, completion)
    if prompt_ids + completion_ids != tokenize(tokenizer, full):
        raise _bad_row(
            "tokens reach over the end of the prompt", on=on, why=f"around {prompt[-40:]!r}"
        )
    _check(tokenizer, prompt_ids, completion_ids, on)
    return Rendered(
        input_ids=prompt_ids + completion_ids,
        completion_mask=[0] * len(prompt_ids) + [1] * len(completion_ids),
    )
