"""Our routes in Airflow's API server, and the client by which steps and triggers ask the door.

Every Airflow component loads the plugin, so the app is built at the first request, in the API server only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx

from include.errors import Refused, Unavailable
from include.settings import settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20
PAUSE_S = 0.5  # between two asks
ASK_S = 10.0  # for one ask


# -- server --------------------------------------------------------------------------------------------------------------


class LazyApp:
    """The ASGI app of our routes, built when it is first called."""

    def __init__(self) -> None:
        self._app: App | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            from fastapi import FastAPI

            from include.flow.door import router

            self._app = FastAPI(title="Airlock", docs_url=None, redoc_url=None, openapi_url=None)
            self._app.include_router(router)
        await self._app(scope, receive, send)


class BodyLimit:
    """Root middleware: a request body of more than 1 MiB is answered 413, on Airflow's own routes too (but for those of its steps)."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/execution/"):
            return await self.app(scope, receive, send)
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MOST_BYTES:
            return await _refuse(send)
        seen = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            # A body without a length that grows too long is cut off as if the client had gone.
            return message if seen <= MOST_BYTES else {"type": "http.disconnect"}

        return await self.app(scope, counted, send)


async def _refuse(send: Send) -> None:
    body = b'{"detail": "The body is larger than 1 MiB."}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})


# -- client --------------------------------------------------------------------------------------------------------------

_token = ""  # of this process; a day long


def ask_door(dag_id: str, run_id: str, rework: str, ti_id: str, timeout: float) -> bool:
    """Ask the door to carry out a recorded rework, every 0.5 s until it has.

    Args:
        dag_id: of the goal.
        run_id: Airflow's.
        rework: id of the row in ``reworks``.
        ti_id: the asking step's task-instance id.
        timeout: seconds until giving up.

    Returns:
        True when it is carried out: the step must return at once. False when the door did not answer in time or the decision is stale:
        defer to ``ReworkTrigger``, which goes on asking, or wakes the step to look afresh.

    Raises:
        Refused: another step made this decision, or the request is malformed.
    """
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        try:
            with httpx.Client(base_url=settings().api_url, timeout=min(left, ASK_S), trust_env=False, verify=False) as client:
                token = _known() or _keep(client.post("/auth/token", json=_who()))
                if (answer := _read(client.post(**_ask(dag_id, run_id, rework, ti_id, token)))) is not None:
                    return bool(answer["outcome"] != "stale epoch")
        except (httpx.HTTPError, ValueError, KeyError):
            pass  # the API server is away: the next ask may find it
        time.sleep(max(0.0, min(PAUSE_S, end - time.monotonic())))
    return False


async def ask_door_async(dag_id: str, run_id: str, rework: str, ti_id: str) -> dict[str, Any]:
    """As ``ask_door``, for triggers: goes on asking for ever.

    Returns:
        The door's answer, see ``include.flow.door.Answer``.
    """
    async with httpx.AsyncClient(base_url=settings().api_url, timeout=ASK_S, trust_env=False, verify=False) as client:
        while True:
            try:
                token = _known() or _keep(await client.post("/auth/token", json=_who()))
                if (answer := _read(await client.post(**_ask(dag_id, run_id, rework, ti_id, token)))) is not None:
                    return answer
            except (httpx.HTTPError, ValueError, KeyError):
                pass  # the API server is away: the next ask may find it
            await asyncio.sleep(PAUSE_S)


def ask_airflow(method: str, path: str, timeout: float = ASK_S, **parameters: Any) -> httpx.Response:
    """One request to Airflow's own REST API, as the user of our steps.

    Args:
        method: for example ``GET``.
        path: behind ``/api/v2``.
        timeout: seconds.
        parameters: of the query.

    Raises:
        Unavailable: the API server does not answer.
    """
    try:
        with httpx.Client(base_url=settings().api_url, timeout=timeout, trust_env=False, verify=False) as client:
            for _ in range(2):
                token = _known() or _keep(client.post("/auth/token", json=_who()))
                head = {"Authorization": f"Bearer {token}"}
                answer = client.request(method, f"/api/v2{path}", params=parameters, headers=head)
                if answer.status_code != 401:
                    break
                _keep(None)
            return answer
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise Unavailable(f"Airflow does not answer at {settings().api_url} ({type(error).__name__}).") from error


def _ask(dag_id: str, run_id: str, rework: str, ti_id: str, token: str) -> dict[str, Any]:
    return {
        "url": f"/airlock/dags/{dag_id}/rework",
        "json": {"rework": rework, "run_id": run_id, "ti_id": ti_id},
        "headers": {"Authorization": f"Bearer {token}"},
    }


def _read(response: httpx.Response) -> dict[str, Any] | None:
    """The answer, or None when asking again may help."""
    if response.status_code == 200:
        answer: dict[str, Any] = response.json()
        return answer
    if response.status_code == 401:
        _keep(None)
    if response.status_code in (403, 422) and "detail" in response.json():
        raise Refused(f"The door refused: {response.json()['detail']}")
    return None  # 404 too: while the API server starts or its plugin is missing


def _who() -> dict[str, str]:
    return {"username": "airlock", "password": settings().api_password}


def _known() -> str:
    return _token


def _keep(response: httpx.Response | None) -> str:
    global _token
    _token = response.json()["access_token"] if response is not None else ""
    return _token
