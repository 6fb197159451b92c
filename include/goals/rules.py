"""How a goal's submission is named in Airflow. Pure."""

from __future__ import annotations

import hashlib

SUBMIT = "submit_goal"
"""The DAG that takes goals in."""


def submission_run(key: str) -> str:
    """Name the run of ``submit_goal`` for an idempotency key: the same key is the same run."""
    return f"goal-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
