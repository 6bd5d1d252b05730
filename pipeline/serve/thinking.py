"""A chat template that knows reasoning, from one that does not. Standard library only.

A model that was taught to write `<think>` in its text has a template that says nothing of it, so
llama.cpp, which learns from the template how reasoning is written, cannot take it out of an answer.
With this in front it can: answers come with `reasoning_content`, and a client that sends one back
has it rendered as it was taught. A conversation without it is rendered as ever.
"""

from pipeline.evaluate.grade import THINK_END, THINK_START

_FOLD = """{%- set folded = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' and message['reasoning_content'] -%}
{%- set written = 'START\\n' + message['reasoning_content'] | trim + '\\nEND\\n' -%}
{%- set written = written + (message['content'] or '') -%}
{%- if message['tool_calls'] -%}
{%- set calls = message['tool_calls'] -%}
{%- set turn = {'role': 'assistant', 'content': written, 'tool_calls': calls} -%}
{%- else -%}
{%- set turn = {'role': 'assistant', 'content': written} -%}
{%- endif -%}
{%- else -%}
{%- set turn = message -%}
{%- endif -%}
{%- set folded.messages = folded.messages + [turn] -%}
{%- endfor -%}
{%- set messages = folded.messages -%}
""".replace("START", THINK_START).replace("END", THINK_END)


def fold_thinking(template: str) -> str:
    """Return the template with `reasoning_content` put before an assistant's text, in its block; as
    it is where it reads that field itself."""
    return template if "reasoning_content" in template else _FOLD + template
