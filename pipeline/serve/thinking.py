"""A chat template that knows reasoning, from one that does not. Standard library only.

A model that was taught to write `<think>` in its text has a template that says nothing of it, so
llama.cpp, which learns from the template how reasoning is written, cannot take it out of an answer.
With docker/serve/thinking.jinja in front it can: answers come with `reasoning_content`, and a
client that sends one back has it rendered as it was taught. A conversation without it is rendered
as ever. The image serve does the same.

Some families' templates llama.cpp knows by words in them, and reads by a parser made for them that
learns nothing (`common_chat_try_specialized_template` of its common/chat.cpp). For two, other words
say that a template only resembles them, and these stand in the file's comment: `[CALL_ID]`, which
tells Mistral Small 3.2 from Ministral 3, and a line of a template that is not Qwen3-Coder's. Their
tool calls are learnt from the template as well.
"""

from pipeline.artifact.key import REPOSITORY

_FOLD = REPOSITORY / "docker" / "serve" / "thinking.jinja"


def fold_thinking(template: str) -> str:
    """Return the template with `reasoning_content` put before an assistant's text, in its block; as
    it is where it reads that field itself."""
    if "reasoning_content" in template:
        return template
    return _FOLD.read_text(encoding="utf-8") + template
