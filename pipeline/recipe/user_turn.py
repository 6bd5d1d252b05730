"""A chat template's Jinja source -> whether it can write a user's turn. Standard library alone.

The template is run where the rows are rendered; here it is only read, so that a plan can refuse
what is certain: a template whose conditions name other roles and never the user's.
"""

import re

_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_CODE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_WRITTEN = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_ROLES = re.compile(r"""['"](assistant|system|tool|model)['"]""")
_USER = re.compile(r"""['"]user['"]""")
# With these a user's turn may be what the conditions leave over.
_OTHERWISE = re.compile(r"\belse\b|!=|\bnot\b")


def lacks_user_turn(template: str) -> bool:
    """Whether no conversation can make the template write what a user says.

    False where reading cannot tell, and for one that refuses by raise_exception: it says itself
    why.
    """
    source = _COMMENT.sub("", template)
    code = " ".join(_CODE.findall(source))
    if not re.search(r"\bmessages\b", code):
        return "raise_exception" not in code
    writes_any_role = any(re.search(r"\brole\b", each) for each in _WRITTEN.findall(source))
    names_others = _ROLES.search(code) is not None and _USER.search(code) is None
    return names_others and not writes_any_role and not _OTHERWISE.search(code)
