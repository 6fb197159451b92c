"""Submit a goal from the command line: by Airflow's REST API, like everybody else, once its folder is registered."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from include.airflow_api.client import Airflow
from include.cli.person import look, operator, transact
from include.errors import BadInput, Conflict, Unavailable
from include.flow.poke import poke
from include.frozen import problems
from include.goals.models import GoalRequest
from include.goals.rules import SUBMIT, submission_run
from include.plans.models import Plan
from include.repository import as_person
from include.repository import service as repositories
from include.repository.models import Registered
from include.settings import Settings
from include.views import goals
from include.views.models import GoalOfKey


def register(word: str) -> Registered:
    """Find the repository that a person names by name or path; a path is registered (unlisted) at first sight.

    Raises:
        BadInput: neither a registered name nor a git repository.
    """
    known = look(lambda connection: repositories.find(connection, word))
    if known is not None:
        return known
    path = git_root(Path(word))
    return transact(lambda connection: repositories.register(connection, path))


def git_root(path: Path) -> Path:
    """Return the folder itself, absolute, when it is a git repository.

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


def read_plan(path: Path) -> Plan:
    """Read a plan made by hand.

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
        first = problems(error)[0]
        raise BadInput("plan", f"{first.where or 'the file'}: {first.what}", "Correct it; the schema is docs/plan.schema.json.") from error


def request(**values: Any) -> GoalRequest:
    """Check the values here, before anything is started.

    Args:
        values: of the fields of ``GoalRequest``; without a key a new one is made, and ``plan`` may be the path of a file.

    Raises:
        BadInput: names the first field that cannot be used.
    """
    made = {"key": values.get("key") or secrets.token_hex(16)}
    if isinstance(path := values.get("plan"), Path):
        made["plan"] = read_plan(path)
    try:
        return GoalRequest.model_validate({**values, **made})
    except ValidationError as error:
        first = problems(error)[0]
        remedy = "Correct it and submit again; see `./airlock goal submit --help`."
        raise BadInput(first.where.replace("_", "-"), first.what.removeprefix("Value error, "), remedy) from error


def conf(request: GoalRequest) -> dict[str, Any]:
    """Make of the request what the form of ``submit_goal`` has."""
    return {**request.model_dump(mode="json"), "wait": False, "submitted_by": operator().name}


def submit(settings: Settings, request: GoalRequest, patience_s: float = 120.0) -> GoalOfKey:
    """Submit, and wait until the goal is taken in.

    Raises:
        BadInput: the form or the first step refuses it; the message names the field and the remedy.
        Conflict: the key was used before with another body.
        Unavailable: Airflow does not answer, or does not get to it.
    """
    run_id, body = submission_run(request.key), conf(request)
    with Airflow(settings) as airflow:
        answer = airflow.trigger(SUBMIT, run_id, body)
        parsed_by = time.monotonic() + 30
        while answer.status_code == 404 and time.monotonic() < parsed_by:  # just started: the DAG processor has not come to it yet
            time.sleep(0.5)
            answer = airflow.trigger(SUBMIT, run_id, body)
        if answer.status_code == 409:
            _refuse_another_body(airflow, run_id, request.key, body)
        elif answer.status_code not in (200, 201):
            raise BadInput("goal", answer.detail, "Correct it and submit again; see `./airlock goal submit --help`.")
        poke()
        return _wait_for_the_goal(airflow, run_id, request.key, patience_s)


def _refuse_another_body(airflow: Airflow, run_id: str, key: str, body: dict[str, Any]) -> None:
    run = airflow.run(SUBMIT, run_id)
    before = (run.conf if run else None) or {}
    if any(before.get(name) != body[name] for name in body if name not in ("wait", "submitted_by")):
        raise Conflict("key", f"{key!r} was used before for another goal", "Use a new key, or the same body.")


def _wait_for_the_goal(airflow: Airflow, run_id: str, key: str, patience_s: float) -> GoalOfKey:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if taken := look(lambda connection: goals.of_key(connection, key)):
            return taken
        run = airflow.run(SUBMIT, run_id)
        if run is not None and run.state == "failed":
            raise BadInput(
                "goal", f"was not taken in: {airflow.failure(SUBMIT, run_id).rstrip('.')}", "Correct it and submit again with a new key."
            )
        time.sleep(0.4)
    raise Unavailable(f"Airflow has not taken the goal in after {patience_s:g} s. Look at {airflow.url}/dags/{SUBMIT}/runs/{run_id}.")
