"""Decide and record. Policy has the last word, and never asks a model."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from include.clock import new_id
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.governance import service as governance
from include.policy import cedar
from include.policy.models import AdmissionRequest, Decision

_SQL = load(__file__)
PROTECTED = (".git", ".github", ".gitattributes", ".gitmodules")


def decide_admission(connection: Connection, request: AdmissionRequest, goal_run: str, epoch: int) -> Decision:
    """May this attempt's worker be let in? The decision is stored with its inputs.

    Args:
        epoch: of the attempt that would be granted.
    """
    decision = judge_admission(request)
    said = {**decision.model_dump(), "rules": list(decision.rules), "epoch": epoch, "action": "admit"}
    stored = {**said, "id": new_id(), "goal_run": goal_run, "task_run": request.task_run, "inputs": Jsonb(request.model_dump())}
    connection.execute(_SQL.insert_decision, stored)
    governance.record(connection, decision.decided_by, "policy.decided", request.task_run, said)
    return decision


def judge_admission(request: AdmissionRequest) -> Decision:
    """As ``decide_admission``, without storing."""
    principal = {
        "uid": {"type": "Agent", "id": request.agent},
        "attrs": {"capabilities": list(request.agent_capabilities)},
        "parents": [],
    }
    resource = {
        "uid": {"type": "Task", "id": request.task_run},
        "attrs": {
            "capabilities": list(request.capabilities),
            "touches_protected": any(path.split("/", 1)[0] in PROTECTED for path in request.touches),
            "worker_known": request.worker_known,
        },
        "parents": [],
    }
    return cedar.decide(
        cedar.load("admission"), principal, "admit", resource, {"left_micro": request.left_micro, "seconds_left": request.seconds_left}
    )
