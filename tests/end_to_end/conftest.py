"""The one build that the tests of this folder share."""

import pytest

from tests.end_to_end.tiny_build import Build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    build = Build(tmp_path_factory.mktemp("end-to-end") / "store")
    told = build.run("build")
    assert told.returncode == 0, told.stderr
    assert "GGUF Q4_K_M" in told.stdout
    return build
