"""A chat template that the recipe chooses -> the checkpoint's own, in every file that says so.

What is trained is then what is served: transformers, llama.cpp's converter and the servers find one
template and stop at the token that ends an answer there. The vocabulary stays as it is: a template
whose marks the tokenizer does not know is refused.
"""

from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerFast

from pipeline.checkpoint.shards import write_json
from pipeline.checkpoint.text_config import CONFIG, read_config
from pipeline.checkpoint.tokenizer_files import CHAT_TEMPLATE
from pipeline.errors import StageError

# A conversation to try the template on, of characters that none writes by itself.
_QUESTION, _ANSWER = "\u2602", "\u2604"

# What a sandboxed template can raise: its own words, or Python's about a value it did not expect.
_TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, ArithmeticError),
    *(AttributeError, RecursionError),
)


def choose_template(checkpoint: Path, template: str) -> None:
    """Make the template that of the checkpoint, whose tokenizer and configs lie there.

    Where nothing in the checkpoint stops at the token that ends an answer, that becomes its EOS.
    Raises StageError for a template that fails, or whose answers end with no token of their own.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint, local_files_only=True)
    end_id = _find_end(tokenizer, template)
    (checkpoint / CHAT_TEMPLATE).write_bytes(template.encode("utf-8"))
    # The converter prefers this place to the file.
    _change(checkpoint / "tokenizer_config.json", lambda config: config.pop("chat_template", None))
    if end_id not in _read_ends(checkpoint, tokenizer):
        _make_eos(checkpoint, end_id, tokenizer.added_tokens_decoder[end_id].content)


def _find_end(tokenizer: PreTrainedTokenizerFast, template: str) -> int:
    messages = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    try:
        text: str = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    except _TEMPLATE_ERRORS as error:
        raise _bad_template("the chat template fails", str(error) or repr(error)) from error
    _, found, behind = text.rpartition(_ANSWER)
    if not found:
        raise _bad_template("the chat template leaves the answer out", f"it writes {text[:400]!r}")
    ids = tokenizer.backend_tokenizer.encode(behind, add_special_tokens=False).ids
    end_id = next((each for each in ids if each in tokenizer.added_tokens_decoder), None)
    if end_id is None:
        raise _bad_template(
            "the chat template is not for this checkpoint",
            f"behind an answer it writes {behind[:80]!r}, in which the tokenizer knows no token"
            " that could end a turn; and none is ever added",
        )
    return int(end_id)


def _bad_template(what: str, why: str) -> StageError:
    return StageError(
        what,
        on="a question and its answer",
        why=why,
        then="choose another one by [dataset] template in the recipe, or mend its file",
    )


def _read_ends(checkpoint: Path, tokenizer: PreTrainedTokenizerFast) -> set[int | None]:
    """Return the ids at which the model stops."""
    path = checkpoint / "generation_config.json"
    ends = read_config(path).get("eos_token_id") if path.is_file() else None
    return {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}


def _make_eos(checkpoint: Path, end_id: int, content: str) -> None:
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _change(checkpoint / name, lambda config: config.update(eos_token=content))
    for name in (CONFIG, "generation_config.json"):
        _change(checkpoint / name, lambda config: config.update(eos_token_id=end_id))


def _change(path: Path, change: Any) -> None:
    """Change the JSON object in a file, if there is one."""
    if path.is_file():
        document = read_config(path)
        change(document)
        write_json(path, document)
