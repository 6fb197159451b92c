"""Ask the REST API of Airflow's API server, as the user ``airlock``: the one client of steps, triggers, command line and drills."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from include.airflow_api.models import DagTold, LogLine, Refusal, RunsTold, RunTold, Started, StepLog, StepsTold, StepTold, Token
from include.errors import Unavailable
from include.settings import Settings

USER = "airlock"
STEP_S = 10.0
"""Seconds that a step waits for an answer."""
PERSON_S = 60.0
"""Seconds that a command waits for an answer: the first one on a busy machine takes long."""
_tokens: dict[str, str] = {}
"""The token of this process for each API server; it is good for a day."""


class _Caller:
    """What the client and its twin for asyncio share: whom they ask, and as whom."""

    def __init__(self, settings: Settings) -> None:
        self.url = settings.api_url
        self._login = {"username": USER, "password": settings.api_password}

    def _head(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {_tokens[self.url]}"}

    def _keep(self, answer: httpx.Response) -> None:
        if answer.status_code not in (200, 201):
            raise Unavailable(f"Airflow refuses the user {USER} ({answer.status_code}). Run `./airlock down` and `./airlock up`.")
        _tokens[self.url] = Token.model_validate_json(answer.content).access_token

    def _away(self, error: Exception) -> Unavailable:
        return Unavailable(f"Airflow does not answer at {self.url} ({type(error).__name__}). Look at `./airlock status`.")


class Airflow(_Caller):
    """A client; used in a ``with``, it closes its connection at the end.

    Args:
        settings: name the API server and the password.
        timeout_s: seconds to wait for an answer.
    """

    def __init__(self, settings: Settings, timeout_s: float = PERSON_S) -> None:
        super().__init__(settings)
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False, verify=False)

    def __enter__(self) -> Airflow:
        """Use it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close its connection."""
        self._http.close()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None, **parameters: Any) -> httpx.Response:
        """Make one request, with a login where one is due.

        Args:
            method: for example ``GET``.
            path: from the root of the API server.
            body: sent as JSON.
            parameters: of the query.

        Raises:
            Unavailable: the API server does not answer, or refuses our user.
        """
        try:
            for _ in range(2):
                if self.url not in _tokens:
                    self._keep(self._http.post("/auth/token", json=self._login))
                answer = self._http.request(method, path, json=body, params=parameters or None, headers=self._head())
                if answer.status_code != 401:
                    break
                _tokens.pop(self.url, None)  # of an earlier start of Airflow
            return answer
        except (httpx.HTTPError, ValueError) as error:
            raise self._away(error) from error

    def trigger(self, dag: str, run_id: str, conf: dict[str, Any]) -> Started:
        """Start a run; the answer's status says what came of it."""
        answer = self.ask("POST", f"{_dag(dag)}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
        return Started(status_code=answer.status_code, detail="" if answer.is_success else _detail(answer))

    def run(self, dag: str, run_id: str) -> RunTold | None:
        """Look at a run; None: there is none.

        Raises:
            Unavailable: Airflow does not answer, or answers neither yes nor no.
        """
        answer = self._found(_run(dag, run_id))
        return RunTold.model_validate_json(answer) if answer else None

    def runs(self, dag: str, states: tuple[str, ...], limit: int = 100) -> tuple[RunTold, ...]:
        """Look at the runs of a DAG that are in one of these states.

        Raises:
            Unavailable: Airflow does not answer, or not with runs.
        """
        answer = self.ask("GET", f"{_dag(dag)}/dagRuns", state=list(states), limit=limit)
        if answer.status_code != 200:
            raise Unavailable(f"Airflow answers {answer.status_code} to a look at the runs of {dag}.")
        return RunsTold.model_validate_json(answer.content).dag_runs

    def mark(self, dag: str, run_id: str, state: str) -> bool:
        """Mark a run; False: there is no such run."""
        return self.ask("PATCH", _run(dag, run_id), {"state": state}).status_code == 200

    def dag(self, dag: str) -> DagTold | None:
        """Look at a DAG; None: Airflow does not know it (yet)."""
        answer = self.ask("GET", _dag(dag))
        return DagTold.model_validate_json(answer.content) if answer.status_code == 200 else None

    def step(self, dag: str, run_id: str, task_id: str) -> StepTold | None:
        """Look at a step of a run; None: there is none.

        Raises:
            Unavailable: Airflow does not answer, or answers neither yes nor no.
        """
        answer = self._found(f"{_run(dag, run_id)}/taskInstances/{quote(task_id)}")
        return StepTold.model_validate_json(answer) if answer else None

    def steps(self, dag: str, run_id: str) -> tuple[StepTold, ...]:
        """Look at all steps of a run; none: there is no such run."""
        answer = self.ask("GET", f"{_run(dag, run_id)}/taskInstances")
        return StepsTold.model_validate_json(answer.content).task_instances if answer.status_code == 200 else ()

    def log(self, dag: str, run_id: str, task_id: str, try_number: int) -> StepLog:
        """Read the log of one try of a step; empty: there is none."""
        answer = self.ask("GET", f"{_run(dag, run_id)}/taskInstances/{quote(task_id)}/logs/{max(1, try_number)}")
        return StepLog.model_validate_json(answer.content) if answer.status_code == 200 else StepLog()

    def failure(self, dag: str, run_id: str) -> str:
        """Say why a run failed: the last error in the logs of its failed steps, as a person should read it."""
        for step in self.steps(dag, run_id):
            if step.state == "failed" and (words := _last_error(self.log(dag, run_id, step.task_id, step.try_number))):
                return words
        return f"see {self.url}/dags/{dag}/runs/{run_id}"

    def _found(self, path: str) -> bytes | None:
        answer = self.ask("GET", path)
        if answer.status_code not in (200, 404):
            raise Unavailable(f"Airflow answers {answer.status_code} to a look at {path}.")
        return answer.content if answer.status_code == 200 else None


class AsyncAirflow(_Caller):
    """As ``Airflow``, for triggers: one question, asked by a coroutine."""

    def __init__(self, settings: Settings, timeout_s: float = STEP_S) -> None:
        super().__init__(settings)
        self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout_s, trust_env=False, verify=False)

    async def __aenter__(self) -> AsyncAirflow:
        """Use it."""
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close its connection."""
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        """As ``Airflow.ask``."""
        try:
            for _ in range(2):
                if self.url not in _tokens:
                    self._keep(await self._http.post("/auth/token", json=self._login))
                answer = await self._http.request(method, path, json=body, headers=self._head())
                if answer.status_code != 401:
                    break
                _tokens.pop(self.url, None)
            return answer
        except (httpx.HTTPError, ValueError) as error:
            raise self._away(error) from error


def _dag(dag: str) -> str:
    return f"/api/v2/dags/{quote(dag)}"


def _run(dag: str, run_id: str) -> str:
    return f"{_dag(dag)}/dagRuns/{quote(run_id, safe='')}"


def _last_error(log: StepLog) -> str:
    for line in reversed(log.content):
        if isinstance(line, LogLine) and line.error_detail:
            last = line.error_detail[-1]
            return last.exc_value or last.exc_type or ""
    return ""


def _detail(answer: httpx.Response) -> str:
    """Say why Airflow refused, in its own words."""
    try:
        detail = Refusal.model_validate_json(answer.content).detail
    except ValueError:
        detail = ""
    return (detail if isinstance(detail, str) else json.dumps(detail)) or f"Airflow answers {answer.status_code}"
