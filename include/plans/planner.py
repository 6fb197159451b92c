"""Plan a goal: ask the agent's model for a task graph, check it, ask once more with the findings, store it."""

from __future__ import annotations

import hashlib
import json

from pydantic import ValidationError

from include.agents import requests
from include.agents import service as agents
from include.agents.models import Inquiry, Prompt, Said
from include.catalog import store as catalog
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadPlan, ModelFailed
from include.frozen import Frozen, problems
from include.goals import planning
from include.goals.models import GoalRun
from include.plans import rules
from include.plans.models import Plan
from include.settings import Settings

_SQL = load(__file__)
TRIES = 2
MAX_TOKENS = 16_000
"""Output tokens of a plan."""
LOST = "lost"
_SYSTEM = """You are the planner of Airlock. You turn a goal for one git repository into a task graph.
Each task is done by one worker in a sandbox without a network: it edits files, runs the tests and commits. Each task's branch is
tested again and merged before the tasks that depend on it start. Make few tasks, each with a clear prompt that stands alone, with the
paths it may touch, and with tests that fail without its change. Tasks that do not depend on each other run side by side: they must
not touch the same files. A task is judged by the tests and test settings that were there before it: one that has to change an existing
test, conftest, test helper or pytest setting names that file in touches, by its path and not by a glob. Answer with the plan only."""


class _Stored(Frozen):
    """A stored plan of a goal."""

    seq: int
    revision: int
    sha256: str


def ask(connection: Connection, run: GoalRun, files: list[str], number: int, findings: list[str]) -> None:
    """Leave the question for the agent's broker.

    Args:
        run: the goal run.
        files: paths of the base's tree, for orientation.
        number: from 1; each call has its own.
        findings: what was wrong with the last plan.
    """
    prompt = _prompt(planning.text_of(connection, run.goal), run, files, findings)
    wanted = Prompt(system=_SYSTEM, messages=[{"role": "user", "content": prompt}], schema=Plan.model_json_schema(), max_tokens=MAX_TOKENS)
    inquiry = Inquiry(agent=run.agent, goal_run=run.id, purpose="plan", address=address(run, number), body=wanted)
    requests.ask(connection, inquiry)


def address(run: GoalRun, number: int) -> str:
    """Where a planning call is found again: ``<goal run>/plan/<n>``."""
    return f"{run.id}/plan/{number}"


def _prompt(text: str, run: GoalRun, files: list[str], findings: list[str]) -> str:
    parts = [
        f"Goal: {text}",
        f"Budget: ${run.budget_micro / 1e6:g}. Time: {max(1, int(run.seconds_left // 60))} minutes.",
        "Files:\n" + "\n".join(files[:400]),
    ]
    if findings:
        parts.append("Your last plan was refused:\n" + "\n".join(f"- {finding}" for finding in findings))
    return "\n\n".join(parts)


def answer(connection: Connection, run: GoalRun, number: int) -> Said | None:
    """Read what became of a planning call; None: it was never asked."""
    return requests.find(connection, address(run, number))


def was_lost(said: Said) -> bool:
    """The broker died over this call: it is not sent again, another one may be."""
    return said.state == "failed" and said.error_kind == LOST


def read(said: Said) -> Plan | list[str]:
    """Read the model's answer: a plan, or what is wrong with it.

    Raises:
        ModelFailed: the broker got no answer; the message says why and what to do.
    """
    if said.state == "failed":
        raise ModelFailed(said.error_kind or "unknown", said.error or "the model gave no answer")
    if said.stop_reason == "max_tokens":
        return ["the plan was cut off: make it shorter"]
    return parse(said.text or "")


def parse(text: str) -> Plan | list[str]:
    """Read a plan from JSON text; the findings are one sentence each."""
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        return [f"{one.where or 'plan'}: {one.what}" for one in problems(error)[:20]]


def findings_of(connection: Connection, settings: Settings, run: GoalRun, plan: Plan) -> list[str]:
    """Check a plan against the agent, the goal and the settings."""
    limits = rules.Limits(
        workers=catalog.names(),
        capabilities=agents.capabilities(connection, run.agent),
        budget_usd=run.budget_micro / 1e6,
        deadline_s=max(60, int(run.seconds_left) + 1),
        max_tasks=settings.max_tasks,
        max_width=settings.max_width,
    )
    return rules.check(plan, limits)


def store(connection: Connection, run: GoalRun, plan: Plan) -> None:
    """Store the plan of a goal run's goal and let the run follow it. A second call changes nothing.

    Raises:
        BadPlan: another plan is already stored for this run.
    """
    document = plan.model_dump_json()
    digest = hashlib.sha256(document.encode()).hexdigest()
    connection.execute(_SQL.insert_plan, {"goal": run.goal, "revision": 1, "sha256": digest, "document": document})
    newest = rows.one(connection, _Stored, _SQL.newest_plan, goal=run.goal)
    if newest.sha256 != digest:
        raise BadPlan([f"the goal already has another plan (revision {newest.revision})"])
    planning.follow(connection, run.id, newest.seq)


def schema() -> str:
    """The public JSON schema of a plan, as docs/plan.schema.json holds it."""
    return json.dumps(Plan.model_json_schema(), indent=2, sort_keys=True) + "\n"
