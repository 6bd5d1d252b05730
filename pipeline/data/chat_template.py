"""A chat template -> its rendering, in which every character knows the text that it came from.

The environment is the very one that transformers renders in (sandboxed, immutable, its filters and
globals), so templates behave as they do there; what differs is that strings are joined by functions
that keep the characters' origins, and that what a filter, a call or `%` makes of a text is marked
as such.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import _compile_jinja_template

from pipeline.data.tracking import Tracked, find_origin, join, mark_lost, read_text, track
from pipeline.errors import StageError

# What a sandboxed template can raise: its own words, or Python's about a value it did not expect.
_TEMPLATE_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, ArithmeticError),
    *(AttributeError, RecursionError),
)

# Filters of Jinja's that give a text as it is, or cut and join it by the methods of `Tracked`.
_EXACT = frozenset(
    {"attr", "d", "default", "first", "last", "max", "min", "random", "replace", "sum", "trim"}
)


class ChatTemplate:
    """A compiled template; `render` may be called for any number of conversations."""

    def __init__(self, source: str, special_tokens: Mapping[str, Any]) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens)
        # Not the cached function: these environments are changed, and are nobody else's.
        environment = _compile_jinja_template.__wrapped__("").environment
        _keep_origins(environment)
        try:
            self._template = environment.from_string(source)
            self._plain = _compile_jinja_template.__wrapped__(source)
        except _TEMPLATE_ERRORS as error:
            raise _failed(error, on="the template itself") from error
        # Jinja copies the globals for each rendering, from a chain of mappings rather slowly.
        self._plain.globals = dict(self._plain.globals)
        # Where the compiled code finds the function for `~`.
        names = self._template.root_render_func.__globals__
        names["str_join"] = names["markup_join"] = _join_plainly

    def render(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        *,
        add_generation_prompt: bool,
        on: str,
    ) -> Tracked:
        """Return the rendering; StageError, naming `on`, with the template's own words."""
        rendered = self._fill(self._template, messages, tools, add_generation_prompt, on=on)
        assert isinstance(rendered, Tracked)
        return rendered

    def render_plainly(
        self,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        *,
        add_generation_prompt: bool,
        on: str,
    ) -> str:
        """Return transformers' own rendering, without origins.

        It is what apply_chat_template gives for plain messages, whose reasoning has both names.
        """
        return self._fill(self._plain, messages, tools, add_generation_prompt, on=on)

    def _fill(
        self,
        template: Any,
        messages: list[dict[str, Any]],
        tools: list[Any] | None,
        add_generation_prompt: bool,
        *,
        on: str,
    ) -> str:
        try:
            rendered: str = template.render(
                messages=messages,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except _TEMPLATE_ERRORS as error:
            raise _failed(error, on=on) from error
        return rendered


def _failed(error: Exception, *, on: str) -> StageError:
    return StageError(
        "the chat template fails",
        on=on,
        why=str(error) or type(error).__name__,
        then="correct the row or the chat template",
    )


def _keep_origins(environment: Any) -> None:
    """Replace what would forget the origins; what cannot be replaced says that it has lost them."""
    environment.concat = _join_plainly
    environment.finalize = read_text
    environment.filters = {
        name: _guard(each, is_exact=name in _EXACT) for name, each in environment.filters.items()
    } | {
        "indent": _indent,
        "join": _join_filter,
        "tojson": _tojson,
        "string": read_text,
        # Nothing is escaped in a chat, so there is nothing to be marked as safe. Where a template
        # mixes safe and other text, Jinja would escape the latter; the rendering then differs from
        # transformers', and the row is refused.
        "safe": read_text,
    }
    environment.intercepted_binops = frozenset({"%"})
    environment.binop_table = environment.binop_table | {
        "%": _guard(environment.binop_table["%"], is_exact=False)
    }
    environment.call = functools.partial(_call, environment.call)


def _join_plainly(parts: Iterable[Any]) -> Tracked:
    return join("", map(read_text, parts))


def _guard(function: Callable[..., Any], *, is_exact: bool) -> Callable[..., Any]:
    """Return the function with its result marked; it keeps what Jinja reads off it."""

    @functools.wraps(function)
    def guarded(*arguments: Any, **named: Any) -> Any:
        result = function(*arguments, **named)
        if isinstance(result, Tracked) and not is_exact:
            result = str.__str__(result)
        return mark_lost(result, *arguments, *named.values())

    return guarded


def _call(call: Callable[..., Any], context: Any, function: Any, *values: Any, **named: Any) -> Any:
    """Call what a template calls: `', '.join(texts)` keeps each text, as do a text's methods."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, str) and getattr(function, "__name__", "") == "join" and len(values) == 1:
        return join(owner, map(read_text, values[0]))
    # What a method of a list or a dictionary gives was in it, and is marked already if it is text.
    from_text = owner if isinstance(owner, str) else None
    return mark_lost(call(context, function, *values, **named), from_text, *values, *named.values())


def _join_filter(value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> Tracked:
    if attribute is not None:
        value = [each[attribute] for each in value]
    return join(d, map(read_text, value))


def _indent(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    before = width if isinstance(width, str) else " " * width
    lines = (s + "\n").splitlines()
    later = [before + line if line or blank else line for line in lines[1:]]
    return join("\n", [before + lines[0] if first else lines[0], *later])


def _tojson(
    x: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> Any:
    text = json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    # All of it is data: names, values and what JSON writes around them.
    return track(text, find_origin(x))
