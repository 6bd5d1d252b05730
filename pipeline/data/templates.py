"""The chat templates that this project brings: one literal table, name -> Jinja source.

They differ from the families' own files in one way: no text is trimmed or added, so that what a row
says is what is taught. The standard library alone: a recipe names these templates.
"""

CHECKPOINT = "checkpoint"  # the checkpoint's own

_ALTERNATE = """\
{%- set turns = namespace(count=0) %}
{%- for message in messages if message.role == 'user' or
        (message.role == 'assistant' and not message.tool_calls) %}
    {%- if (message.role == 'user') != (turns.count % 2 == 0) %}
        {{- raise_exception('roles must alternate user and assistant') }}
    {%- endif %}
    {%- set turns.count = turns.count + 1 %}
{%- endfor %}
"""

# Before system prompts had marks of their own, they stood in the last user's turn.
_MISTRAL_3 = (
    """\
{{- bos_token }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content + '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
"""
    + _ALTERNATE
    + """\
{%- set last = namespace(user=-1) %}
{%- for message in messages if message.role == 'user' %}
    {%- set last.user = message %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if message == last.user and tools %}
            {{- '[AVAILABLE_TOOLS]SPACE' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]SPACE' + (system if loop.last else '') + message.content + '[/INST]' }}
    {%- elif message.role == 'assistant' and message.tool_calls %}
        {{- '[TOOL_CALLS]SPACE[' }}
        {%- for call in message.tool_calls %}
            {{- '{"name": ' + (call.function.name | tojson) + ', "arguments": ' }}
            {{- (call.function.arguments | tojson) + ', "id": ' + (call.id | tojson) + '}' }}
            {{- '' if loop.last else ', ' }}
        {%- endfor %}
        {{- ']' + eos_token }}
    {%- elif message.role == 'assistant' %}
        {{- 'SPACE' + message.content + eos_token }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS]SPACE{"content": ' + (message.content | tojson) + ', "call_id": ' }}
        {{- (message.tool_call_id | tojson) + '}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception('only the first message may be a system prompt') }}
    {%- endif %}
{%- endfor %}
"""
)

_MISTRAL_7 = (
    "{{- bos_token }}\n"
    + _ALTERNATE
    + """\
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {{- '[SYSTEM_PROMPT]SPACE' + message.content + '[/SYSTEM_PROMPT]' }}
    {%- endif %}
    {%- if tools and (loop.first and message.role != 'system'
            or loop.index0 == 1 and messages[0].role == 'system') %}
        {{- '[AVAILABLE_TOOLS]SPACE' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {{- '[INST]SPACE' + message.content + '[/INST]' }}
    {%- elif message.role == 'assistant' %}
        {%- if message.content %}
            {{- 'SPACE' + message.content }}
        {%- endif %}
CALLS
        {{- eos_token }}
    {%- elif message.role == 'tool' %}
RESULT
    {%- endif %}
{%- endfor %}
"""
)

_CALLS_7 = """\
        {%- for call in message.tool_calls or [] %}
            {{- '[TOOL_CALLS]SPACE[' if loop.first else ', ' }}
            {{- '{"name": ' + (call.function.name | tojson) + ', "arguments": ' }}
            {{- (call.function.arguments | tojson) + ', "id": ' + (call.id | tojson) + '}' }}
            {{- ']' if loop.last else '' }}
        {%- endfor %}"""

_RESULT_7 = """\
        {{- '[TOOL_RESULTS]SPACE' + message.tool_call_id + '[TOOL_CONTENT]SPACE' }}
        {{- message.content + '[/TOOL_RESULTS]' }}"""

# Thinking comes as chunks: [THINK]..[/THINK] are control tokens from here on. A server that sees a
# template read chunks gives it every text as one.
_WRITE_13 = """\
{%- macro write(content) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for chunk in content %}
            {{- '[THINK]' + chunk.thinking + '[/THINK]' if chunk.type == 'thinking'
                else chunk.text }}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
"""

_CALLS_13 = """\
        {%- for call in message.tool_calls or [] %}
            {{- '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}
            {{- call.function.arguments | tojson }}
        {%- endfor %}"""

_RESULT_13 = """\
        {{- '[TOOL_RESULTS]' + write(message.content) + '[/TOOL_RESULTS]' }}"""

_MISTRAL_13 = _WRITE_13 + _MISTRAL_7.replace(
    "message.content +", "write(message.content) +"
).replace("'SPACE' + message.content }}", "write(message.content) }}")

_CHATML = """\
{{- bos_token or '' }}
{%- if tools %}
    {{- raise_exception('this template has no form for tools') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('this template has no form for tools') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_QWEN = """\
{{- bos_token or '' }}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- if tools %}
    {%- set system = (system + '\\n\\n' if system else '') + '# Tools\\n\\n'
        'You may call one or more functions to assist with the user query.\\n\\n'
        'You are provided with function signatures within <tools></tools> XML tags:\\n<tools>' %}
    {{- '<|im_start|>system\\n' + system }}
    {%- for tool in tools %}
        {{- '\\n' + (tool | tojson) }}
    {%- endfor %}
    {{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and '
        'arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n'
        '{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif system %}
    {{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {{- '' if loop.previtem is defined and loop.previtem.role == 'tool'
            else '<|im_start|>user' }}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {{- '' if loop.nextitem is defined and loop.nextitem.role == 'tool'
            else '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' }}
        {%- if message.reasoning_content %}
            {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- message.content }}
        {%- for call in message.tool_calls or [] %}
            {{- '' if loop.first and not message.content else '\\n' }}
            {{- '<tool_call>\\n{"name": ' + (call.function.name | tojson) + ', "arguments": ' }}
            {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_LLAMA_3 = """\
{{- bos_token }}
{%- if tools %}
    {{- raise_exception('this template has no form for tools') }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls or message.role == 'tool' %}
        {{- raise_exception('this template has no form for tools') }}
    {%- endif %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}
    {{- message.content + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# It has no system role: the system prompt opens the first user's turn.
_GEMMA = (
    """\
{{- bos_token }}
{%- if tools %}
    {{- raise_exception('this template has no form for tools') }}
{%- endif %}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content + '\\n\\n' %}
    {%- set messages = messages[1:] %}
{%- endif %}
"""
    + _ALTERNATE
    + """\
{%- for message in messages %}
    {%- if message.tool_calls or message.role not in ('user', 'assistant') %}
        {{- raise_exception('this template has users and assistants alone') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('user' if message.role == 'user' else 'model') + '\\n' }}
    {{- (system if loop.first else '') + message.content + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}
"""
)


def _make_mistral(form: str, *, space: str, calls: str = "", result: str = "") -> str:
    """SentencePiece writes a space after each mark, tekken does not."""
    source = form.replace("CALLS\n", calls + "\n").replace("RESULT\n", result + "\n")
    return source.replace("SPACE", space)


BUILT_IN = {
    "mistral-v3": _make_mistral(_MISTRAL_3, space=" "),
    "mistral-v3-tekken": _make_mistral(_MISTRAL_3, space=""),
    "mistral-v7": _make_mistral(_MISTRAL_7, space=" ", calls=_CALLS_7, result=_RESULT_7),
    "mistral-v7-tekken": _make_mistral(_MISTRAL_7, space="", calls=_CALLS_7, result=_RESULT_7),
    "mistral-v13": _make_mistral(_MISTRAL_13, space="", calls=_CALLS_13, result=_RESULT_13),
    "chatml": _CHATML,
    "llama-3": _LLAMA_3,
    "gemma": _GEMMA,
    "qwen": _QWEN,
}
