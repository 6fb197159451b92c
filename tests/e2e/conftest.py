"""The end-to-end tests' projects that goals work on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.stack import repository

collect_ignore = ["tiny"]  # a project that the goals work on
HERE = Path(__file__).parent


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny project with two passing tests."""
    return repository(HERE / "tiny", tmp_path / "tiny")
