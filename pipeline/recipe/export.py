"""[export] of a recipe: what a model is called where others find it. No key depends on it."""

import re
from dataclasses import dataclass

from pipeline.recipe.parsing import Problem
from pipeline.recipe.setting import setting

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Export:
    repository: str = setting("Repository on the hub that `publish` writes, owner/name.", "")
    license: str = setting("Licence of the model as the hub spells it, like apache-2.0.", "")
    base_model: str = setting(
        "The base's owner/name for the model card; one that is read from the hub names itself.", ""
    )
    languages: tuple[str, ...] = setting(
        'Languages for the model card, like "en".', (), may_be_empty=True
    )


def find_export_problems(export: Export) -> list[Problem]:
    """Return what is no name on the hub."""
    named = {"repository": export.repository, "base_model": export.base_model}
    return [
        Problem(at=("export", field), value=name, what="must be owner/name")
        for field, name in named.items()
        if name and not _HUB_ID.fullmatch(name)
    ]
