"""Ask the warden for a sandbox, without an operator: for steps that run one of their own (verify)."""

from __future__ import annotations

import httpx

from include.errors import SandboxFailed, Unavailable
from include.fleet import service as fleet
from include.frozen import Frozen

_PATIENCE_S = 60.0


class Problem(Frozen):
    """What the warden answers when it does not do what it was asked."""

    message: str


def ensure_sandbox(node: str, name: str) -> None:
    """Have the warden of a node make and start the sandbox of a live lease; one that is there is adopted. If its lease is over, its
    evidence will say so.

    Args:
        node: ``leases.node``.
        name: ``leases.sandbox``.

    Raises:
        SandboxFailed: the warden could not.
        Unavailable: the warden or PostgreSQL does not answer; try again. Or the node is another machine.
    """
    socket = fleet.address_of(node).removeprefix("unix://")
    transport = httpx.HTTPTransport(uds=socket, verify=False)
    with httpx.Client(transport=transport, base_url="http://warden/v1.41", timeout=_PATIENCE_S, verify=False) as warden:
        try:
            _expect(warden.post("/containers/create", params={"name": name}, json={}), name, 201, 404, 409)
            _expect(warden.post(f"/containers/{name}/start"), name, 204, 304, 404)
        except httpx.HTTPError as error:
            raise Unavailable(f"The warden does not answer at {socket} ({error}). Look at `./airlock status`.") from error


def _expect(answer: httpx.Response, name: str, *wanted: int) -> None:
    if answer.status_code in wanted:
        return
    try:
        message = Problem.model_validate_json(answer.content).message
    except ValueError:
        message = answer.text
    if answer.status_code == 503:
        raise Unavailable(message)
    raise SandboxFailed(f"The warden gave no sandbox {name}: {answer.status_code} {message}")
