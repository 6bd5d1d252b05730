"""`template` of [dataset]: the name of a chat template, or the path of a Jinja file -> its source.

The source stands in the keys of everything that is rendered with it or carries it. Standard library
alone: that a template works is seen where Jinja is, before anything long begins.
"""

from pathlib import Path

from pipeline.data.templates import BUILT_IN, CHECKPOINT
from pipeline.errors import UsageError
from pipeline.recipe.parsing import did_you_mean
from pipeline.recipe.user_turn import lacks_user_turn

_NAMES = (CHECKPOINT, *BUILT_IN)


def resolve_template(template: str, folder: Path) -> str:
    """Return a name as it is, a path made absolute; it is relative to the recipe's folder."""
    return template if template in _NAMES else str((folder / template).resolve())


def find_template_problem(template: str, folder: Path) -> str:
    """Return why no template can be read there; nothing when one can."""
    try:
        read_template_source(resolve_template(template, folder))
    except UsageError as error:
        return error.why
    return ""


def read_template_source(template: str) -> str:
    """Return the template's source; nothing for the checkpoint's own, which is not read here.

    Raises UsageError when it is neither a name nor a file of text.
    """
    if template == CHECKPOINT:
        return ""
    if template in BUILT_IN:
        return BUILT_IN[template]
    path = Path(template)
    try:
        source = path.read_bytes().decode("utf-8")
        why = "" if source.strip() else "it is empty"
        if not why and lacks_user_turn(source):
            why = "it never writes what a user says"
    except UnicodeDecodeError as error:
        why = f"it is not UTF-8: {error.reason} at byte {error.start}"
    except OSError as error:
        why = f"it is no template's name, and no file: {error.strerror}"
        why += did_you_mean(path.name, _NAMES)
    if why:
        raise UsageError(
            "the chat template cannot be read",
            on=template,
            why=f"{path}: {why}",
            then="mend [dataset] template in the recipe",
        )
    return source
