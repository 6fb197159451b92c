"""Submit a goal from the command line: by Airflow's REST API, like everybody else, once its folder is registered."""

from __future__ import annotations

import getpass
import hashlib
import json
import re
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from pydantic import ValidationError

from include.cli import store
from include.cli.rest import Airflow
from include.database.unit_of_work import transaction
from include.errors import BadInput, Conflict, Unavailable
from include.flow.poke import poke
from include.goals.models import GoalRequest
from include.plans.models import Plan
from include.repository import as_person
from include.settings import Settings

DAG = "submit_goal"


class Submitted(NamedTuple):
    """A goal that was taken in."""

    goal: str
    run: str


def dag_run_id(key: str) -> str:
    """The id of the run of ``submit_goal`` for an idempotency key: the same key is the same run."""
    return f"goal-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def register(word: str) -> str:
    """The name of the repository that a person names by name or path; a path is registered (unlisted) at first sight.

    Raises:
        BadInput: neither a registered name nor a git repository.
    """
    with transaction("cli") as connection:
        if (known := store.repository(connection, word)) is not None:
            return str(known["name"])
        path = git_root(Path(word))
        known = store.repository(connection, str(path)) or store.add_repository(
            connection, _free_name(connection, path), path, listed=False
        )
        return str(known["name"])


def git_root(path: Path) -> Path:
    """The folder itself, absolute, when it is a git repository.

    Raises:
        BadInput: it is not there or not a git repository.
    """
    path = path.expanduser().resolve()
    if not path.is_dir():
        raise BadInput(
            "repo", f"{str(path)!r} is neither a registered repository nor a folder", "See `./airlock repo list`, or give a path."
        )
    git_dir = as_person.git_dir(path)
    if git_dir is None:
        raise BadInput("repo", f"{path} is not a git repository", f"Make it one: git -C {path} init, add, commit.")
    if not (path / ".git").exists() and git_dir != path:
        raise BadInput("repo", f"{path} lies inside a git repository", "Give the folder that holds .git.")
    return path


def _free_name(connection: Any, path: Path) -> str:
    base = re.sub(r"[^a-z0-9._-]+", "-", path.name.lower()).strip("-._")[:56] or "repository"
    taken = {row["name"] for row in store.repositories(connection)}
    return next(name for name in (base, *(f"{base}-{n}" for n in range(2, 10_000))) if name not in taken)


def repository_path(name: str) -> Path:
    """Where a registered repository lies."""
    with transaction("cli") as connection:
        row = store.repository(connection, name)
    assert row is not None
    return Path(row["path"])


def read_plan(path: Path) -> Plan:
    """A plan made by hand.

    Raises:
        BadInput: no such file, no JSON, or not a plan; the message names the first broken field.
    """
    try:
        return Plan.model_validate_json(path.read_text())
    except OSError as error:
        raise BadInput(
            "plan", f"{path} cannot be read ({error.strerror})", "Give the path of a JSON file, see docs/plan.schema.json."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadInput("plan", f"{where}: {first['msg']}", "Correct it; the schema is docs/plan.schema.json.") from error


def request(**values: Any) -> GoalRequest:
    """Check the values here, before anything is started.

    Raises:
        BadInput: names the first field that cannot be used.
    """
    try:
        return GoalRequest.model_validate({**values, "key": values.get("key") or secrets.token_hex(16)})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        raise BadInput(
            field, first["msg"].removeprefix("Value error, "), "Correct it and submit again; see `./airlock goal submit --help`."
        ) from error


def conf(request: GoalRequest) -> dict[str, Any]:
    """The request as the form of ``submit_goal`` has it."""
    return {**request.model_dump(mode="json"), "wait": False, "submitted_by": getpass.getuser()}


def submit(settings: Settings, request: GoalRequest, patience_s: float = 120.0) -> Submitted:
    """Submit, and wait until the goal is taken in.

    Raises:
        BadInput: the form or the first step refuses it; the message names the field and the remedy.
        Conflict: the key was used before with another body.
        Unavailable: Airflow does not answer, or does not get to it.
    """
    airflow, run_id, body = Airflow(settings), dag_run_id(request.key), conf(request)
    answer = airflow.trigger(DAG, run_id, body)
    parsed_by = time.monotonic() + 30
    while answer.status_code == 404 and time.monotonic() < parsed_by:  # just started: the DAG processor has not come to it yet
        time.sleep(0.5)
        answer = airflow.trigger(DAG, run_id, body)
    if answer.status_code == 409:
        _refuse_another_body(airflow, run_id, request, body)
    elif answer.status_code not in (200, 201):
        raise BadInput("goal", _detail(answer), "Correct it and submit again; see `./airlock goal submit --help`.")
    poke()
    return _wait_for_the_goal(settings, airflow, run_id, request.key, patience_s)


def _refuse_another_body(airflow: Airflow, run_id: str, request: GoalRequest, body: dict[str, Any]) -> None:
    before = (airflow.run(DAG, run_id) or {}).get("conf") or {}
    if any(before.get(name) != body[name] for name in body if name not in ("wait", "submitted_by")):
        raise Conflict("key", f"{request.key!r} was used before for another goal", "Use a new key, or the same body.")


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json()["detail"]
    except (ValueError, KeyError, TypeError):
        return f"Airflow answers {answer.status_code}"
    return detail if isinstance(detail, str) else json.dumps(detail)


def _wait_for_the_goal(settings: Settings, airflow: Airflow, run_id: str, key: str, patience_s: float) -> Submitted:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with transaction("cli") as connection:
            if row := store.goal_of_key(connection, key):
                return Submitted(row["goal"], row["run"])
        if (airflow.run(DAG, run_id) or {}).get("state") == "failed":
            raise BadInput(
                "goal", f"was not taken in: {airflow.failure(DAG, run_id).rstrip('.')}", "Correct it and submit again with a new key."
            )
        time.sleep(0.4)
    raise Unavailable(f"Airflow has not taken the goal in after {patience_s:g} s. Look at {settings.api_url}/dags/{DAG}/runs/{run_id}.")
