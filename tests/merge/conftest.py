"""One world a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.settings import Settings
from tests.merge.world import World


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(settings, tmp_path)
