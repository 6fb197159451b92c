"""What the warden asks of an engine: five verbs on a sandbox, and the list of its own."""

from __future__ import annotations

from typing import Protocol

from include.sandbox.models import Exit, Spec


class Engine(Protocol):
    """A container engine or process sandboxes. Names are those of the leases; every verb may be repeated."""

    rung: str
    notice: str
    outlives_warden: bool

    async def create(self, spec: Spec) -> None:
        """Make the sandbox without starting it. Raises SandboxFailed."""

    async def start(self, name: str) -> None:
        """Let the program go; nothing happens if it runs already. Raises SandboxFailed."""

    async def wait(self, name: str) -> Exit:
        """Wait until it has ended; a sandbox that is gone gives an Exit without a code."""

    async def kill(self, name: str) -> None:
        """End every process of it now; nothing happens if it is gone."""

    async def logs(self, name: str) -> bytes:
        """Read the last MiB of what it wrote; still there after its end."""

    async def remove(self, name: str) -> None:
        """Forget it; nothing happens if it is gone."""

    async def own(self) -> dict[str, str]:
        """List the sandboxes of this home and node, by name: ``created``, ``running`` or ``ended``."""

    def uid(self, name: str) -> int | None:
        """Say who owns what the sandbox may write; None: the warden's own user."""
