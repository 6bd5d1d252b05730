"""What Ollama reads of a model, its Modelfile: the file, the chat, and the settings it was judged
with. Standard library alone, and pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.export.go_template import say_text

_FENCE = '"""'


@dataclass(frozen=True, kw_only=True)
class Chat:
    """What ollama.json says; `bos` is to be written by the template, "" where the GGUF says that
    whoever reads the text puts it in front."""

    template: str
    stops: Sequence[str]
    why: str
    bos: str = ""


def read_chat(document: Mapping[str, Any], *, adds_bos: bool) -> Chat:
    """Return what ollama.json says of a GGUF; `adds_bos` is what that says of BOS."""
    return Chat(
        template=document["template"],
        stops=tuple(document["stops"]),
        why=document["why"],
        bos="" if adds_bos else document["bos"],
    )


def make_modelfile(
    file: str, chat: Chat, *, context: int, temperature: float, licence: str = ""
) -> str:
    """Return the Modelfile of a GGUF that lies beside it."""
    lines = [f"FROM ./{file}"]
    template = say_text(chat.bos) + ("\n" if chat.bos else "") + chat.template
    if chat.template and _FENCE not in template:
        lines.append(f"TEMPLATE {_FENCE}{template}{_FENCE}")
    else:
        why = chat.why or "it holds three quotation marks in a row"
        lines += [
            "# No TEMPLATE: this chat template cannot be said in Ollama's language,",
            f"# for {why}. Ollama looks for one like it among its own.",
        ]
    # One stop holds no quotation mark, or the line would end there.
    lines += [f'PARAMETER stop "{each}"' for each in chat.stops if '"' not in each]
    lines += [f"PARAMETER num_ctx {context}", f"PARAMETER temperature {temperature:g}"]
    if licence:
        lines.append(f"LICENSE {_FENCE}{licence}{_FENCE}")
    return "\n".join(lines) + "\n"
