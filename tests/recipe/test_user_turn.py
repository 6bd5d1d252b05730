"""No chat template that was published is taken for one without a user's turn.

llama.cpp's source carries those of many families.
"""

import sys
from pathlib import Path

import pytest

from pipeline.recipe.user_turn import lacks_user_turn

pytestmark = pytest.mark.convert

_FOLDER = Path(sys.prefix) / "llama" / "src" / "models" / "templates"


def test_no_published_template_is_refused() -> None:
    paths = sorted(_FOLDER.glob("*.jinja"))
    assert len(paths) > 20
    refused = [path.name for path in paths if lacks_user_turn(path.read_text(encoding="utf-8"))]
    assert refused == []
