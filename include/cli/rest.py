"""The few calls of Airflow's REST API that the command line makes, as the user ``airlock``."""

from __future__ import annotations

from typing import Any

import httpx

from include.errors import Unavailable
from include.settings import Settings

USER = "airlock"


class Airflow:
    """A client with a token of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = httpx.Client(
            base_url=settings.api_url, timeout=60, trust_env=False, verify=False
        )  # its first answer on a busy machine takes long

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            if "Authorization" not in self._http.headers:
                self._log_in()
            return self._http.request(method, f"/api/v2{path}", json=body)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"Airflow does not answer at {self._settings.api_url} ({type(error).__name__}). Look at `./airlock status`."
            ) from error

    def _log_in(self) -> None:
        answer = self._http.post("/auth/token", json={"username": USER, "password": self._settings.api_password})
        if answer.status_code not in (200, 201):
            raise Unavailable(f"Airflow refuses the user {USER} ({answer.status_code}). Run `./airlock down` and `./airlock up`.")
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def trigger(self, dag: str, run_id: str, conf: dict[str, Any]) -> httpx.Response:
        """Start a run. 200: started. 409: there is one of this id already. 400 and 422: the conf breaks the form."""
        return self._ask("POST", f"/dags/{dag}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})

    def run(self, dag: str, run_id: str) -> dict[str, Any] | None:
        """A run's row; None: there is none."""
        answer = self._ask("GET", f"/dags/{dag}/dagRuns/{run_id}")
        return answer.json() if answer.status_code == 200 else None

    def mark(self, dag: str, run_id: str, state: str) -> bool:
        """Mark a run; False when there is no such run."""
        return self._ask("PATCH", f"/dags/{dag}/dagRuns/{run_id}", {"state": state}).status_code == 200

    def failure(self, dag: str, run_id: str) -> str:
        """Why a run failed: the last error in the logs of its failed steps, as a person should read it."""
        answer = self._ask("GET", f"/dags/{dag}/dagRuns/{run_id}/taskInstances")
        steps = answer.json().get("task_instances", []) if answer.status_code == 200 else []
        for step in steps:
            if step["state"] == "failed" and (words := self._last_error(dag, run_id, step)):
                return words
        return f"see {self._settings.api_url}/dags/{dag}/runs/{run_id}"

    def _last_error(self, dag: str, run_id: str, step: dict[str, Any]) -> str:
        path = f"/dags/{dag}/dagRuns/{run_id}/taskInstances/{step['task_id']}/logs/{max(1, step['try_number'])}"
        answer = self._ask("GET", path)
        lines = answer.json().get("content", []) if answer.status_code == 200 else []
        for line in reversed([line for line in lines if isinstance(line, dict)]):
            if details := line.get("error_detail"):
                return str(details[-1].get("exc_value") or details[-1].get("exc_type"))
        return ""
