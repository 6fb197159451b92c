"""Process sandboxes: bubblewrap, after leaving root for a uid slot. They die with the warden and are never adopted."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Final

from include.errors import SandboxFailed
from include.sandbox import profile, seccomp, workspace
from include.sandbox.models import Exit, Spec

FIRST_UID: Final = 20000
SLOTS: Final = 200
_READY_S: Final = 60.0


class Slot:
    """One uid of the machine, held by an abstract socket: two wardens cannot hold the same, and a dead one holds none."""

    def __init__(self) -> None:
        for uid in range(FIRST_UID, FIRST_UID + SLOTS):
            holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                holder.bind(f"\0airlock-slot-{uid}")
            except OSError:
                holder.close()
                continue
            self.uid, self._holder = uid, holder
            self.clear()
            return
        raise SandboxFailed(
            f"All {SLOTS} uid slots of this machine are in use. Wait until sandboxes end, or look for strangers with `ss -xl`."
        )

    def clear(self) -> None:
        """End whatever still runs under this uid."""
        subprocess.run(
            ["/bin/sh", "-c", "kill -KILL -1"], user=self.uid, group=self.uid, extra_groups=[], stderr=subprocess.DEVNULL, check=False
        )

    def release(self) -> None:
        """Give the uid back, with nothing left under it."""
        self.clear()
        self._holder.close()


class _Sandbox:
    """One process sandbox and the pump of its output."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.process: asyncio.subprocess.Process | None = None
        self.pump: asyncio.Task[None] | None = None

    @property
    def log(self) -> Path:
        return self.spec.folder / "log"


class BubblewrapEngine:
    """One bubblewrap process tree a sandbox."""

    rung = "bubblewrap"
    outlives_warden = False

    def __init__(self, notice: str = "") -> None:
        self.notice = notice
        self._sandboxes: dict[str, _Sandbox] = {}
        self._slots: dict[str, Slot] = {}

    def uid(self, name: str) -> int | None:
        """Give the sandbox a uid slot of its own, as root; None: all run as the warden's user."""
        if os.geteuid() != 0:
            return None
        if name not in self._slots:
            self._slots[name] = Slot()
        return self._slots[name].uid

    async def create(self, spec: Spec) -> None:
        """Remember what is to run."""
        if os.geteuid() == 0 and spec.uid < FIRST_UID:
            raise SandboxFailed("bubblewrap as root is no sandbox: the warden must leave root for a uid slot first.")
        self._sandboxes[spec.name] = _Sandbox(spec)

    async def start(self, name: str) -> None:
        """Start it, and let the program go once the sandbox stands."""
        sandbox = self._known(name)
        if sandbox.process is not None:
            return
        sandbox.process = await self._spawn(sandbox.spec)
        await self._handshake(sandbox)
        sandbox.pump = asyncio.create_task(_pump(sandbox))

    async def _spawn(self, spec: Spec) -> asyncio.subprocess.Process:
        filter_fd = os.memfd_create("seccomp", 0)
        os.write(filter_fd, seccomp.program())
        os.lseek(filter_fd, 0, os.SEEK_SET)
        command = profile.bubblewrap_command(spec, os.geteuid() == 0, filter_fd)
        pipe = asyncio.subprocess.PIPE
        try:
            # From the main thread: the parent-death signal belongs to the thread that spawned.
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(filter_fd,),
                env={"PATH": os.environ.get("PATH", os.defpath)},
                cwd="/",
            )
        finally:
            os.close(filter_fd)

    async def _handshake(self, sandbox: _Sandbox) -> None:
        process = sandbox.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        try:
            said = await asyncio.wait_for(process.stdout.readline(), _READY_S)
        except TimeoutError:
            said = f"nothing for {_READY_S:g} s".encode()
        if said != b"ready\n":
            await self.kill(sandbox.spec.name)
            rest = (said + await process.stdout.read(2000)).decode(errors="replace").strip()
            sandbox.process = None
            raise SandboxFailed(f"bubblewrap could not make the sandbox {sandbox.spec.name}: {rest}")
        workspace.mark_started(sandbox.spec.folder)
        process.stdin.write(b"go\n")
        process.stdin.close()

    async def wait(self, name: str) -> Exit:
        """Wait for the end and for the last of its output."""
        sandbox = self._sandboxes.get(name)
        if sandbox is None or sandbox.process is None:
            return Exit(None)
        code = await sandbox.process.wait()
        if sandbox.pump is not None:
            await asyncio.wait([sandbox.pump], timeout=2)
        return Exit(128 - code if code < 0 else code)

    async def kill(self, name: str) -> None:
        """Kill the first process inside, with which the kernel ends all others; then the outer one, should it still stand."""
        sandbox = self._sandboxes.get(name)
        if sandbox is None or sandbox.process is None or sandbox.process.returncode is not None:
            return
        for pid in _children(sandbox.process.pid) or [sandbox.process.pid]:
            _kill(pid)
        try:
            await asyncio.wait_for(sandbox.process.wait(), 2)
        except TimeoutError:
            _kill(sandbox.process.pid)
            await sandbox.process.wait()

    async def logs(self, name: str) -> bytes:
        """Read the last MiB, from the attempt's own files, also of one that died with an earlier warden."""
        sandbox = self._sandboxes.get(name)
        return read_log(sandbox.spec.folder) if sandbox else b""

    async def remove(self, name: str) -> None:
        """Forget it and give its uid back."""
        await self.kill(name)
        sandbox = self._sandboxes.pop(name, None)
        if sandbox and sandbox.pump:
            sandbox.pump.cancel()
        if slot := self._slots.pop(name, None):
            slot.release()

    async def own(self) -> dict[str, str]:
        """List what this process started."""
        return {name: _state(sandbox.process) for name, sandbox in self._sandboxes.items()}

    def _known(self, name: str) -> _Sandbox:
        if name not in self._sandboxes:
            raise SandboxFailed(f"{name} was not created on this node.")
        return self._sandboxes[name]


def _state(process: asyncio.subprocess.Process | None) -> str:
    if process is None:
        return "created"
    return "running" if process.returncode is None else "ended"


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# -- log -------------------------------------------------------------------------------------------------------------------


async def _pump(sandbox: _Sandbox) -> None:
    """Write the output to two files of at most a MiB each, in turn: what was written last is always there."""
    process = sandbox.process
    assert process is not None and process.stdout is not None
    file = sandbox.log.open("wb", buffering=0)
    try:
        while chunk := await process.stdout.read(65536):
            if file.tell() + len(chunk) > profile.LOG_BYTES:
                file.close()
                sandbox.log.replace(sandbox.log.with_suffix(".1"))
                file = sandbox.log.open("wb", buffering=0)
            file.write(chunk)
    finally:
        file.close()


def read_log(folder: Path) -> bytes:
    """Read the last MiB of an attempt's two log files."""
    pieces = [path.read_bytes() for path in (folder / "log.1", folder / "log") if path.exists()]
    return b"".join(pieces)[-profile.LOG_BYTES :]


def usable() -> str:
    """Say why process sandboxes cannot run here; empty: they can."""
    missing = [tool for tool in ("bwrap", "prlimit", *(("setpriv",) if os.geteuid() == 0 else ())) if not shutil.which(tool)]
    return f"{', '.join(missing)} not installed (packages bubblewrap and util-linux)" if missing else ""
