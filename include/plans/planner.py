"""Plan a goal: ask the agent's model for a task graph, check it, ask once more with the findings, store it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from psycopg.types.json import Jsonb
from pydantic import ValidationError

from include.catalog import store as catalog
from include.clock import new_id
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadPlan, ModelFailed
from include.plans import rules
from include.plans.models import Plan
from include.settings import Settings

_SQL = load(__file__)
TRIES = 2
LOST = "lost"
_SYSTEM = """You are the planner of Airlock. You turn a goal for one git repository into a task graph.
Each task is done by one worker in a sandbox without a network: it edits files, runs the tests and commits. Each task's branch is
tested again and merged before the tasks that depend on it start. Make few tasks, each with a clear prompt that stands alone, with the
paths it may touch, and with tests that fail without its change. Tasks that do not depend on each other run side by side: they must
not touch the same files. Answer with the plan only."""


def ask(connection: Connection, run: dict[str, Any], files: list[str], number: int, findings: list[str]) -> None:
    """Leave the question for the agent's broker.

    Args:
        run: the goal run (with goal_text and agent).
        files: paths of the base's tree, for orientation.
        number: from 1; each call has its own.
        findings: what was wrong with the last plan.
    """
    body = {
        "model": None,
        "system": _SYSTEM,
        "messages": [{"role": "user", "content": _prompt(run, files, findings)}],
        "schema": Plan.model_json_schema(),
        "max_tokens": 16_000,
    }
    connection.execute(
        _SQL.insert_model_request,
        {
            "id": new_id(),
            "agent": run["agent"],
            "goal_run": run["id"],
            "purpose": "plan",
            "address": address(run, number),
            "body": Jsonb(body),
        },
    )


def address(run: dict[str, Any], number: int) -> str:
    """Where a planning call is found again: ``<goal run>/plan/<n>``."""
    return f"{run['id']}/plan/{number}"


def _prompt(run: dict[str, Any], files: list[str], findings: list[str]) -> str:
    parts = [
        f"Goal: {run['goal_text']}",
        f"Budget: ${run['budget_micro'] / 1e6:g}. Time: {max(1, int(run['seconds_left'] // 60))} minutes.",
        "Files:\n" + "\n".join(files[:400]),
    ]
    if findings:
        parts.append("Your last plan was refused:\n" + "\n".join(f"- {finding}" for finding in findings))
    return "\n\n".join(parts)


def answer(connection: Connection, run: dict[str, Any], number: int) -> dict[str, Any] | None:
    """The request row of a planning call, or None if it was never asked."""
    return connection.execute(_SQL.model_request, {"address": address(run, number)}).fetchone()


def was_lost(row: dict[str, Any]) -> bool:
    """The broker died over this call: it is not sent again, another one may be."""
    return bool(row["state"] == "failed" and row["error_kind"] == LOST)


def read(row: dict[str, Any]) -> Plan | list[str]:
    """Read the model's answer: a plan, or what is wrong with it.

    Raises:
        ModelFailed: the broker got no answer; the message says why and what to do.
    """
    if row["state"] == "failed":
        raise ModelFailed(row["error_kind"] or "unknown", row["error"] or "the model gave no answer")
    if row["response"].get("stop_reason") == "max_tokens":
        return ["the plan was cut off: make it shorter"]
    return parse(row["response"]["text"])


def parse(text: str) -> Plan | list[str]:
    """Read a plan from JSON text; the findings are one sentence each."""
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        return [f"{'.'.join(str(part) for part in one['loc']) or 'plan'}: {one['msg']}" for one in error.errors()[:20]]


def findings_of(connection: Connection, settings: Settings, run: dict[str, Any], plan: Plan) -> list[str]:
    """Check a plan against the agent, the goal and the settings."""
    agent = connection.execute(_SQL.agent, {"name": run["agent"]}).fetchone()
    assert agent is not None
    return rules.check(
        plan,
        catalog.names(),
        agent["capabilities"],
        run["budget_micro"] / 1e6,
        max(60, int(run["seconds_left"]) + 1),
        settings.max_tasks,
        settings.max_width,
    )


def store(connection: Connection, run: dict[str, Any], plan: Plan) -> None:
    """Store the plan of a goal run's goal and let the run follow it. A second call changes nothing.

    Raises:
        BadPlan: another plan is already stored for this run.
    """
    document = plan.model_dump_json()
    digest = hashlib.sha256(document.encode()).hexdigest()
    connection.execute(_SQL.insert_plan, {"goal": run["goal"], "revision": 1, "sha256": digest, "document": document})
    row = connection.execute(_SQL.newest_plan, {"goal": run["goal"]}).fetchone()
    assert row is not None
    if row["sha256"] != digest:
        raise BadPlan([f"the goal already has another plan (revision {row['revision']})"])
    connection.execute(_SQL.set_plan, {"goal_run": run["id"], "plan": row["seq"]})


def schema() -> str:
    """The public JSON schema of a plan, as docs/plan.schema.json holds it."""
    return json.dumps(Plan.model_json_schema(), indent=2, sort_keys=True) + "\n"
