"""The reaper: whatever no live lease owns is gone within 15 s while the warden runs, and what a live lease owns stays."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from include.sandbox import folders, profile
from include.sandbox.leftovers import leftovers
from include.sandbox.sockets import short
from tests.conftest import wait_until
from tests.kit.quiet import Figure
from tests.kit.scale import limit, patience
from tests.sandbox.conftest import Node
from tests.sandbox.test_ends import SLEEPER, at_work, inside
from tests.sandbox.test_run import NOTHING

WITHIN_S = 15


def plant_directory(node: Node) -> Path:
    """A directory of an attempt that no lease knows, with a mount and a listening socket in it."""
    stray = node.root / f"airlock-stray-{secrets.token_hex(3)}"
    (stray / "task").mkdir(parents=True)
    (stray / "workspace").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(stray / "workspace")], check=True)
    with short(stray / "task" / "relay.sock") as name, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
    return stray


def plant_container(node: Node) -> None:
    label = f"{profile.OWNER_LABEL}={folders.owner(node.settings)}"
    name = f"airlock-stray-{secrets.token_hex(3)}"
    subprocess.run(
        ["docker", "run", "-d", "--name", name, "--label", label, "airlock/worker:latest", "sleep", "600"], check=True, capture_output=True
    )


def test_everything_that_nobody_owns_is_gone_and_a_live_sandbox_stays(node: Node, figure: Figure) -> None:
    node.program(SLEEPER)
    owned, living = at_work(node)
    pids = inside(node, living)
    orphan, orphan_name = at_work(node)  # its lease is ended behind the warden's back: a sandbox that no live lease owns
    orphans = inside(node, orphan_name)
    with node.halted("warden"):  # else its reaper may come by while this is laid out and counted
        node.do("UPDATE leases SET ended_at = clock_timestamp() WHERE id = %s", orphan)
        stray = plant_directory(node)
        if node.engine == "docker":
            plant_container(node)
        half = [node.root / f".toolbox-{secrets.token_hex(3)}.part-{secrets.token_hex(3)}", node.settings.handins_dir / f"{uuid4()}.part"]
        half[0].mkdir()
        half[1].write_bytes(b"half")
        (mine := node.settings.handins_dir / f"{owned}.part").write_bytes(b"being copied")
        found = leftovers(node.settings)
        assert (
            found["directories"] >= 3 and found["mounts"] >= 2 and found["sockets"] >= 2 and found["processes"] >= 3
        )  # control: they are seen
        assert node.one("SELECT 1 AS one FROM attempt_keys WHERE lease = %s", orphan)
    begun = time.monotonic()

    def clean() -> bool:
        now = leftovers(node.settings)
        return {**now, "directories": now["directories"] - 1} == NOTHING  # the live lease's own copy is counted as a part

    wait_until(f"nothing is left\n{node.log('warden')}", clean, WITHIN_S)
    figure(f"{node.engine}: what nobody owns is gone after, s", time.monotonic() - begun, WITHIN_S)
    assert not stray.exists() and not half[0].exists() and not half[1].exists()
    assert not set(orphans) & set(inside(node, orphan_name)) and inside(node, orphan_name) == []
    wait_until("its keys are deleted", lambda: not node.one("SELECT 1 AS one FROM attempt_keys WHERE lease = %s", orphan), WITHIN_S)
    assert set(pids) <= set(inside(node, living)) and mine.exists() and (node.root / living / "task" / "relay.sock").exists()
    assert node.one("SELECT 1 AS one FROM attempt_keys WHERE lease = %s", owned)
    mine.unlink()


def test_a_process_that_survived_its_warden_is_ended(node: Node) -> None:
    """Something of a sandbox lives on under a directory that nobody owns."""
    stray = node.root / f"airlock-stray-{secrets.token_hex(3)}"
    script = f"mkdir -p /run/task && mount --bind {stray}/task /run/task && exec sleep 600"
    with node.halted("warden"):  # else its reaper may be there before all of it stands
        (stray / "task").mkdir(parents=True)
        child = subprocess.Popen(["unshare", "-m", "/bin/sh", "-c", script], stderr=sys.stderr)
        wait_until("it stands", lambda: inside(node, stray.name) == [child.pid], 5)
    try:
        assert child.wait(patience(WITHIN_S)) == -9
        wait_until("its directory is gone", lambda: not stray.exists(), 5)
    finally:
        child.kill()
        child.wait()


def test_control_a_start_during_the_reaping_is_left_alone(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sandboxes are made and started one after the other for longer than two rounds of the reaper; none is lost."""
    node.program(SLEEPER)
    node.kill("warden")
    monkeypatch.setenv("AIRLOCK_REAP_S", "1")
    node.start_warden()
    end, names = time.monotonic() + limit(4), []
    while time.monotonic() < end or len(names) < 5:
        lease, name = node.lease("verify")
        node.run(name)
        names.append((lease, name))
        time.sleep(0.2)
        if len(names) > 5:
            lease, name = names.pop(0)
            assert inside(node, name), name
            node.revoke(lease)
    assert all(inside(node, name) for _, name in names)
    node.kill("warden")  # the next test's begins with the interval that is usual
