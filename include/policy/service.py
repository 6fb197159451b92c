"""Decide and record. Policy has the last word, and never asks a model."""

from __future__ import annotations

import json
from typing import Any

from include.clock import new_id
from include.database import queries
from include.database.unit_of_work import AsyncConnection, Connection
from include.governance import service as governance
from include.governance.models import AuditEntry
from include.policy import deciders
from include.policy.models import AdmissionRequest, Decision, PolicyQuestion, PolicyRecord

_SQL = queries.load(__file__)


def judge(question: PolicyQuestion) -> Decision:
    """Decide a question, without recording it."""
    return deciders.first_answer(deciders.CHAINS[type(question)], question)


def decide_admission(connection: Connection, request: AdmissionRequest, goal_run: str, epoch: int) -> Decision:
    """Decide whether an attempt's worker is let in, and record the decision with its inputs.

    Args:
        epoch: of the attempt that would be granted.
    """
    decision = judge(request)
    connection.execute(_SQL.insert_decisions, _columns([PolicyRecord(goal_run, epoch, request, decision)]))
    said = decision.model_dump(mode="json") | {"epoch": epoch, "action": request.action}
    governance.record(connection, decision.decided_by, "policy.decided", request.task_run, said)
    return decision


async def record_uses(connection: AsyncConnection, agent: str, decided: list[PolicyRecord]) -> None:
    """Record what workers of an agent may use and what not, each with its inputs, in the transaction of their requests."""
    if not decided:
        return
    await connection.execute(_SQL.insert_decisions, _columns(decided))
    await governance.record_many(connection, [_entry(agent, one) for one in decided])


def _entry(agent: str, decided: PolicyRecord) -> AuditEntry:
    detail = decided.decision.model_dump(mode="json") | {"capability": decided.question.action, "inputs": decided.question.inputs}
    return AuditEntry(f"broker/{agent}", "permission.decided", f"{decided.question.task_run}/{decided.epoch}", detail)


def _columns(decided: list[PolicyRecord]) -> dict[str, Any]:
    names = "ids goal_runs task_runs epochs actions decisions deciders rules reasons hashes inputs"
    rows = []
    for goal_run, epoch, question, said in decided:
        about = (new_id(), goal_run, question.task_run, epoch, question.action)
        rules, inputs = json.dumps(said.rules), json.dumps(question.inputs)
        rows.append((*about, said.decision, said.decided_by, rules, said.reason, said.policy_sha256, inputs))
    return queries.columns(names, rows)
