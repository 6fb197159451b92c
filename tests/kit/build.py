"""Rows for the tests of all rooms, made as the product makes them: a goal, its run, task runs, attempts with their leases, a node.

All of it goes through the services; where one would need git, or is written for asyncio, it goes through the same room's own statement.
Whoever adds a column that must be filled fills it in the product: neither here nor in a test anything changes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from psycopg import sql
from pydantic import BaseModel

from include.agents import service as agents
from include.clock import new_id
from include.database import queries, rows
from include.database.unit_of_work import Connection
from include.fleet import service as fleet
from include.fleet.models import Offer, Placement
from include.goals import service as goals
from include.goals.models import Goal, GoalRequest, LockedGoalRun
from include.leases import service as leases
from include.leases.models import Terms, Work
from include.plans import planner
from include.repository import service as repositories
from include.tasks import service as tasks
from include.tasks.models import AttemptRef, AttemptState, Ending, Failure, GoalRunState, LockedTaskRun, TaskRunState
from include.tasks.rules import TRANSITIONS

_GOALS, _PLANS, _TASKS, _LEASES, _FLEET = (queries.load(room.__file__) for room in (goals, planner, tasks, leases, fleet))
TERMS = Terms(seconds=900, max_tokens=200_000, max_micro=1_000_000, capabilities=("test", "git-commit"))
LOCAL = Placement(node="local", rung="bubblewrap")


class Granted(NamedTuple):
    """An attempt with its lease and its two keys."""

    attempt: AttemptRef
    lease: UUID
    sandbox: str
    in_key: bytes
    out_key: bytes


def ground(connection: Connection, path: Path | str = "/nowhere", repository: str = "sample") -> None:
    """What every goal stands on: the agents that an installation has, and a registered repository (as role ``owner``)."""
    agents.seed(connection)
    repositories.add(connection, repository, Path(path))


def node(connection: Connection, name: str = "local", capacity: int = 99, rung: str = "bubblewrap") -> Placement:
    """A node that is alive."""
    connection.execute(_FLEET.register, Offer(name=name, capacity=capacity, rung=rung, notice="").model_dump())
    return Placement(node=name, rung=rung)


def goal(connection: Connection, dag_id: str = "", **asked: Any) -> Goal:
    """A goal without a run, as ``goals.intake.submit`` stores it once it has looked at the repository.

    Args:
        dag_id: empty: as a submission names it.
        asked: fields of ``GoalRequest`` that are to differ from the usual ones.
    """
    id_ = new_id()
    dag_id = dag_id or f"goal_sample_{id_.hex[-8:]}"
    usual = {"goal": "Do it", "repository": "sample", "key": dag_id, "deadline": "1h"}
    columns = GoalRequest(**{**usual, **asked}).columns()
    return rows.one(connection, Goal, _GOALS.insert_goal, **columns, id=id_, dag_id=dag_id, created_by="me")


def plan(connection: Connection, goal_id: UUID, document: BaseModel | dict[str, Any] | str, revision: int = 1) -> None:
    """A plan of a goal, which runs that are made from now on follow; a text is stored as it is, whatever it says."""
    if isinstance(document, BaseModel):
        document = document.model_dump_json()
    text = document if isinstance(document, str) else json.dumps(document)
    digest = hashlib.sha256(text.encode()).hexdigest()
    connection.execute(_PLANS.insert_plan, {"goal": goal_id, "revision": revision, "sha256": digest, "document": text})


def run(connection: Connection, of: Goal, id_: str = "", run_id: str = "r", state: GoalRunState = GoalRunState.SUBMITTED) -> LockedGoalRun:
    """A run of a goal, on its newest plan, brought to a state.

    Args:
        id_: empty: as a submission makes it.
        run_id: of its DAG run.
    """
    connection.execute(_GOALS.insert_run, {"id": id_ or goals.new_run_id(), "goal": of.id, "run_id": run_id})
    made = goals.lock(connection, of.dag_id, run_id)
    for step in way("goal_run", made.state, state):
        goals.set_state(connection, made, GoalRunState(step))
    return goals.lock(connection, of.dag_id, run_id)


def task(connection: Connection, goal_run: str, key: str, state: TaskRunState | None = None) -> LockedTaskRun:
    """A task run, as it is or brought to a state; to be LEASED it gets an attempt on the node ``local``, without a lease."""
    row = tasks.lock(connection, goal_run, key)
    for step in way("task_run", row.state, state or row.state):
        if step == TaskRunState.LEASED:
            tasks.new_attempt(connection, row, LOCAL, None, 0)
        elif step == TaskRunState.COMPLETED:
            tasks.complete(connection, row, "c")
        else:
            tasks.set_state(connection, row, TaskRunState(step))
        row = tasks.lock(connection, goal_run, key)
    return row


def attempt(
    connection: Connection,
    task_run: LockedTaskRun,
    terms: Terms = TERMS,
    commit: str = "c",
    ti_id: str = "ti",
    resumed_from: int | None = None,
) -> Granted:
    """The next attempt of a task run on the node ``local``, with its lease, as the admit step grants it; one before it ends as lost."""
    if task_run.state not in (TaskRunState.PENDING, TaskRunState.PENDING_RETRY):
        tasks.end_attempt(connection, task_run, Ending(Failure.LOST, "a newer attempt took over", counted=False))
        tasks.set_state(connection, task_run, TaskRunState.PENDING_RETRY)
    tasks.set_state(connection, task_run, TaskRunState.POLICY_CHECK)
    made = tasks.new_attempt(connection, task_run, LOCAL, resumed_from, 0)
    grant = leases.grant_work(connection, LOCAL, Work(task_run.goal_run, task_run.id, made.epoch, commit, terms, ti_id))
    keys = connection.execute("SELECT in_key, out_key FROM attempt_keys WHERE lease = %s", [grant.lease]).fetchone()
    assert keys is not None
    return Granted(made, grant.lease, grant.sandbox, bytes(keys["in_key"]), bytes(keys["out_key"]))


def works(connection: Connection, granted: Granted) -> None:
    """Its sandbox runs, and its worker has said that it works (what warden and broker write)."""
    connection.execute(_LEASES.started, {"lease": granted.lease})
    moved = {"task_runs": [granted.attempt.task_run], "epochs": [granted.attempt.epoch]}
    connection.execute(_TASKS.move_attempts, {**moved, "to": AttemptState.WORKING, "from": [AttemptState.SPAWNING]})
    connection.execute(_TASKS.move_tasks, {**moved, "to": TaskRunState.EXECUTING, "from": [TaskRunState.LEASED]})


def ended(connection: Connection, lease: UUID) -> None:
    """Its sandbox is gone, and its keys with it (what the warden writes)."""
    connection.execute(_LEASES.forget_keys, {"lease": lease})
    connection.execute(_LEASES.ended, {"lease": lease})


def twins(connection: Connection, table: str, of: str = "true", source: str = "generate_series(1, 1) n", **changes: str) -> None:
    """Copies of the rows that a condition holds for, as raw as can be: for states that no service makes, and for thousands of rows.

    Args:
        of: SQL; ``t`` is the row.
        source: SQL; one copy for each of its rows.
        changes: columns of the copies that differ, as SQL.
    """
    changed = ", ".join(f"'{column}', {value}" for column, value in changes.items())
    statement = (
        "INSERT INTO {} SELECT x.* FROM {} t, " + source + ", jsonb_populate_record(t, jsonb_build_object(" + changed + ")) x WHERE " + of
    )
    connection.execute(sql.SQL(statement).format(*[sql.Identifier(table)] * 2))  # type: ignore[arg-type]


def way(machine: str, before: str, after: str) -> list[str]:
    """The shortest way of a state machine from one state to another, without the first."""
    ways = [[before]]
    for known in ways:
        if known[-1] == after:
            return known[1:]
        ways += [[*known, to] for kind, state, to in TRANSITIONS if kind == machine and state == known[-1] and to not in known]
    raise AssertionError(f"no way leads a {machine} from {before} to {after}")
