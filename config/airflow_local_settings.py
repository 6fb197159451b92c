"""Airflow imports this module when it starts. A scheduler that was not forked from our launcher preloads here what its steps need."""

from __future__ import annotations

import sys

__all__: list[str] = []

if "scheduler" in sys.argv[1:2]:
    from include.flow.preload import step

    step()
