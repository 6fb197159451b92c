"""The few calls of the Docker Engine API 1.41 that a DockerOperator needs. A create's body is never read: what runs comes from the lease.

All else is 403, on purpose: no list, wait, attach, stop, kill, exec or build. Do not let it grow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from include.errors import AirlockError, NotFound, SandboxFailed, Unavailable
from include.sandbox.attempts import Attempts

_STATUS: dict[type[AirlockError], int] = {NotFound: 404, Unavailable: 503, SandboxFailed: 500}
_Handler = Callable[[Request], Awaitable[Response]]


def application(attempts: Attempts, image: str) -> Starlette:
    """Make the HTTP application behind the warden's socket."""
    calls = _Calls(attempts, image)
    table: list[tuple[str, str, _Handler]] = [
        ("GET", "/_ping", calls.ping),
        ("GET", "/version", calls.version),
        ("GET", "/images/json", calls.images),
        ("POST", "/containers/create", calls.create),
        ("POST", "/containers/{name}/start", calls.start),
        ("GET", "/containers/{name}/json", calls.inspect),
        ("GET", "/containers/{name}/logs", calls.logs),
    ]
    routes: list[BaseRoute] = [
        Route(prefix + path, handler, methods=[method]) for method, path, handler in table for prefix in ("", "/v1.41")
    ]
    return Starlette(routes=routes, exception_handlers={AirlockError: _failed, 404: _refused, 405: _refused})


async def _failed(_: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
    return JSONResponse({"message": str(error)}, status)


async def _refused(request: Request, _: Exception) -> Response:
    return JSONResponse(
        {"message": f"The warden does not offer {request.method} {request.url.path}: only it ends and removes sandboxes."}, 403
    )


class _Calls:
    def __init__(self, attempts: Attempts, image: str) -> None:
        self._attempts, self._image = attempts, image

    async def ping(self, _: Request) -> Response:
        return PlainTextResponse("OK", headers={"Api-Version": "1.41", "Ostype": "linux"})

    async def version(self, _: Request) -> Response:
        return JSONResponse({"Version": "airlock-warden", "ApiVersion": "1.41", "MinAPIVersion": "1.41", "Os": "linux", "Arch": ""})

    async def images(self, _: Request) -> Response:
        return JSONResponse([{"Id": self._image, "RepoTags": [self._image], "Created": 0, "Size": 0}])  # empty: the operator would pull

    async def create(self, request: Request) -> Response:
        name = request.query_params.get("name", "")
        if not await self._ready().create(name):
            return JSONResponse({"message": f"{name} exists; adopt it"}, 409)
        return JSONResponse({"Id": name, "Warnings": []}, 201)

    async def start(self, request: Request) -> Response:
        return Response(status_code=204 if await self._ready().start(_name(request)) else 304)

    async def inspect(self, request: Request) -> Response:
        return JSONResponse(_inspected(_name(request), self._image, self._state(request)))

    async def logs(self, request: Request) -> Response:
        self._state(request)
        written = await self._attempts.logs(_name(request))
        return Response(b"\x01\0\0\0" + len(written).to_bytes(4, "big") + written, media_type="application/octet-stream")

    def _state(self, request: Request) -> str:
        name = _name(request)
        state = self._ready().state(name)
        if state is None:
            raise NotFound(f"There is no sandbox {name} on this node.")
        return state

    def _ready(self) -> Attempts:
        if not self._attempts.ready:
            raise Unavailable("The warden is still bringing order after its start, or PostgreSQL does not answer. Ask again in a second.")
        return self._attempts


def _name(request: Request) -> str:
    """The sandbox that the path of a call names."""
    return str(request.path_params["name"])


def _inspected(name: str, image: str, state: str) -> dict[str, Any]:
    return {
        "Id": name, "Name": f"/{name}", "Image": image,
        "State": {"Status": state, "Running": state == "running", "ExitCode": 0, "OOMKilled": False},
        "Config": {"Tty": False, "Image": image},
    }  # fmt: skip
