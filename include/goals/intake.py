"""Take in a submission. Checks that need the database or git (repository, branch, agent) are made here; errors name field and remedy."""

from __future__ import annotations

import difflib
import re
from typing import Any, NamedTuple

from pydantic import ValidationError

from include.agents import service as agents
from include.clock import new_id, now
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadInput, Conflict
from include.frozen import problems
from include.goals import service
from include.goals.models import Goal, GoalRequest, GoalRun, LockedGoalRun
from include.governance import service as governance
from include.leases import service as leases
from include.repository import service as repositories
from include.settings import Settings
from include.tasks.models import GoalRunState

_SQL = load(__file__)


class Submission(NamedTuple):
    """What a submission became; ``again`` is true if the same key and body came before."""

    goal: Goal
    run: LockedGoalRun
    again: bool


def read_request(values: dict[str, Any]) -> GoalRequest:
    """Read a form's or a client's values.

    Raises:
        BadInput: names the first field that cannot be used, and why.
    """
    try:
        return GoalRequest.model_validate(values)
    except ValidationError as error:
        first = problems(error)[0]
        raise BadInput(first.where or "request", first.what.removeprefix("Value error, "), "Correct it and submit again.") from error


def submit(connection: Connection, settings: Settings, request: GoalRequest, created_by: str, unlisted: bool) -> Submission:
    """Store a goal and its first run, once per key.

    Args:
        created_by: the person, or the command line's user.
        unlisted: True if repositories that were named by a path on the command line may be used.

    Raises:
        BadInput: unknown repository, branch or agent.
        Conflict: the key was used before with another body.
    """
    known = rows.maybe(connection, Goal, _SQL.goal_by_key, key=request.key)
    if known is None:
        _check_names(connection, request, unlisted)
        service.fetch_base(connection, settings, request.repository, request.base)
        made = rows.maybe(connection, Goal, _SQL.insert_goal, **_row(request, created_by))
        if made is not None:
            return Submission(made, _make_run(connection, request, made, created_by), again=False)
        known = rows.one(connection, Goal, _SQL.goal_by_key, key=request.key)
    if known.request_sha256 != request.sha256:
        problem = f"{request.key!r} was used for another goal ({known.title!r})"
        raise Conflict("key", problem, "Use a new key.")
    return Submission(known, _first_run(connection, known), again=True)


def _make_run(connection: Connection, request: GoalRequest, goal: Goal, created_by: str) -> LockedGoalRun:
    run = service.new_run_id()
    spoken = f"{now():%Y-%m-%d_%H-%M-%S}_{run}"
    connection.execute(_SQL.insert_run, {"id": run, "goal": goal.id, "run_id": spoken})
    detail = {"title": request.title, "repository": request.repository, "budget_micro": request.budget_micro}
    governance.record(connection, created_by, "goal.submitted", run, detail)
    return service.lock(connection, goal.dag_id, spoken)


def settle(connection: Connection, dag_id: str, run_id: str) -> GoalRun:
    """End a submission; a goal run that it never launched ends too, so that no goal waits for ever.

    Returns:
        The goal run as it is afterwards.
    """
    run = service.lock(connection, dag_id, run_id)
    if run.state in (GoalRunState.SUBMITTED, GoalRunState.PLANNING, GoalRunState.AWAITING_APPROVAL):
        words = "its submission did not finish: a step of submit_goal failed or was marked in Airflow. Submit it again under a new key."
        service.set_state(connection, run, GoalRunState.CANCELLED, words)
        leases.revoke_goal_run(connection, run.id, words)
    return service.lock(connection, dag_id, run_id)


def _first_run(connection: Connection, goal: Goal) -> LockedGoalRun:
    return service.lock(connection, goal.dag_id, rows.scalar(connection, _SQL.first_run, goal=goal.id))


def _row(request: GoalRequest, created_by: str) -> dict[str, Any]:
    goal = new_id()
    slug = re.sub(r"[^a-z0-9]+", "_", request.repository.lower()).strip("_")[:24] or "repository"
    return {"id": goal, "dag_id": f"goal_{slug}_{goal.hex[-8:]}", "created_by": created_by, **request.columns()}


def _check_names(connection: Connection, request: GoalRequest, unlisted: bool) -> None:
    known = agents.names(connection)
    if request.agent not in known:
        raise BadInput("agent", f"{request.agent!r} is not an agent", _nearest(request.agent, known))
    repository = repositories.named(connection, request.repository)
    if repository is None or not (repository.listed or unlisted):
        remedy = _nearest(request.repository, repositories.listed(connection)) + " Register one with `./airlock repo add NAME PATH`."
        raise BadInput("repository", f"{request.repository!r} is not registered", remedy)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known) or 'none'}."
