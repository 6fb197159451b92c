"""Great Expectations takes 10 s of CPU to import: it is loaded for the tests that judge, and for no other process of a test run."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def great_expectations() -> ModuleType:
    """The module ``include.gate.gatekeeper``, which loads Great Expectations."""
    from include.gate import gatekeeper

    return gatekeeper
