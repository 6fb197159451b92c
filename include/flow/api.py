"""Our routes in Airflow's API server. Who asks them is in ``include/airflow_api``.

Every Airflow component loads the plugin, so the app is built at the first request, in the API server only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1 << 20


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
