"""The repository on which real tool servers work."""

from pathlib import Path

import pytest

from peer.servers import make_repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")
