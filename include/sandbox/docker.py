"""Containers, by the Docker Engine API over its unix socket. Only the warden uses this."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx

from include.errors import SandboxFailed, Unavailable
from include.sandbox import profile
from include.sandbox.models import CONTAINERS, Exit, Inspected, Spec

_PATIENCE_S = 30.0
_HEADER = 8


def client(docker_host: str, timeout_s: float = _PATIENCE_S) -> httpx.AsyncClient:
    """Make a client of the engine at ``unix:///path``."""
    transport = httpx.AsyncHTTPTransport(uds=docker_host.removeprefix("unix://"), limits=httpx.Limits(max_connections=None), verify=False)
    return httpx.AsyncClient(transport=transport, base_url="http://docker/v1.41", timeout=timeout_s, verify=False)


class DockerEngine:
    """One container a sandbox, made from the profile table.

    Args:
        docker_host: address of the engine.
        image: of every container.
        owner: mark of this home and node.
    """

    rung = "container"
    outlives_warden = True

    def __init__(self, docker_host: str, image: str, owner: str, notice: str = "") -> None:
        self.notice = notice
        self._http = client(docker_host)
        self._image = image
        self._owner = owner

    def uid(self, name: str) -> int | None:  # noqa: ARG002 - one uid for all: a container sees no other container
        """Root gives what the sandbox may write to the sandbox's own uid."""
        return profile.UID if os.geteuid() == 0 else None

    async def create(self, spec: Spec) -> None:
        """Make the container; one of the same name must not exist."""
        answer = await self._call("POST", f"/containers/create?name={spec.name}", json=profile.docker_body(spec, self._image, self._owner))
        self._expect(answer, spec.name, "create", 201)

    async def start(self, name: str) -> None:
        """Start it."""
        self._expect(await self._call("POST", f"/containers/{name}/start"), name, "start", 204, 304)

    async def inspect(self, name: str) -> Inspected | None:
        """Ask the engine how it is, or None: it is not there."""
        answer = await self._call("GET", f"/containers/{name}/json")
        if answer.status_code == 404:
            return None
        self._expect(answer, name, "inspect", 200)
        return Inspected.model_validate_json(answer.content)

    async def wait(self, name: str) -> Exit:
        """Wait for the end; an engine that is restarted meanwhile is asked again until it answers."""
        while True:
            try:
                await self._http.post(f"/containers/{name}/wait", timeout=None)
                about = await self.inspect(name)
                if about is None:
                    return Exit(None)
                if about.state.status in ("exited", "dead"):
                    return Exit(about.state.exit_code, about.state.out_of_memory)
            except (httpx.HTTPError, Unavailable):
                pass
            await asyncio.sleep(0.5)

    async def kill(self, name: str) -> None:
        """SIGKILL to all its processes."""
        self._expect(await self._call("POST", f"/containers/{name}/kill"), name, "kill", 204, 404, 409)

    async def remove(self, name: str) -> None:
        """Remove the container."""
        for _ in range(50):
            answer = await self._call("DELETE", f"/containers/{name}?force=true&v=true")
            if answer.status_code != 409:  # 409: a removal is under way
                break
            await asyncio.sleep(0.1)
        self._expect(answer, name, "remove", 204, 404)

    async def own(self) -> dict[str, str]:
        """List the containers with our mark."""
        filters = json.dumps({"label": [f"{profile.OWNER_LABEL}={self._owner}"]})
        answer = await self._call("GET", "/containers/json", params={"all": "true", "filters": filters})
        self._expect(answer, "of ours", "list", 200)
        states = {"created": "created", "running": "running", "restarting": "running", "paused": "running"}
        return {each.name: states.get(each.state, "ended") for each in CONTAINERS.validate_json(answer.content)}

    async def logs(self, name: str) -> bytes:
        """Read the last MiB of both outputs, read as a stream so that memory stays flat."""
        kept = bytearray()
        try:
            async with self._http.stream("GET", f"/containers/{name}/logs", params={"stdout": "true", "stderr": "true"}) as answer:
                if answer.status_code != 200:
                    return b""
                async for piece in _unframed(answer.aiter_raw()):
                    kept += piece
                    del kept[: max(0, len(kept) - profile.LOG_BYTES)]
        except httpx.HTTPError as error:
            kept += f"\n[the engine stopped sending the log: {error}]\n".encode()
        return bytes(kept)

    async def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return await self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise Unavailable(f"The Docker engine does not answer ({error or type(error).__name__}). Look at `docker info`.") from error

    @staticmethod
    def _expect(answer: httpx.Response, name: str, verb: str, *wanted: int) -> None:
        if answer.status_code not in wanted:
            raise SandboxFailed(f"Docker could not {verb} the container {name}: {answer.status_code} {answer.text.strip()}")


async def _unframed(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Take the 8-byte frame headers out of a log stream; pieces come as they are, so that no frame is ever held whole."""
    buffer, left = bytearray(), 0
    async for chunk in chunks:
        buffer += chunk
        while buffer and (left or len(buffer) >= _HEADER):
            if left == 0:
                left = int.from_bytes(buffer[4:_HEADER], "big")
                del buffer[:_HEADER]
                continue
            piece = bytes(buffer[:left])
            left -= len(piece)
            del buffer[: len(piece)]
            yield piece
