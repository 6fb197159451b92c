"""How tests wait for what other processes do: they look again and again, for so many seconds of a free machine (``scale.patience``)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.kit.scale import patience


def poll(check: Callable[[], Any], seconds: float, pause: float = 0.05) -> Any:
    """Call ``check`` until it returns something true, and give that; after so many seconds give what it returned last."""
    end = time.monotonic() + patience(seconds)
    while not (value := check()) and time.monotonic() < end:
        time.sleep(pause)
    return value


def wait_until(what: str, check: Callable[[], Any], seconds: float = 20.0) -> Any:
    """As ``poll``, but the test fails with ``what`` when the time is over."""
    if value := poll(check, seconds):
        return value
    pytest.fail(f"waited {patience(seconds):g} s in vain: {what}")
