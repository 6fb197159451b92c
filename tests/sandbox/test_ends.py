"""Sandboxes end when PostgreSQL says so, hostile hand-ins are refused, and a kill -9 of the warden at any point leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from include.sandbox import folders, profile, workspace
from include.sandbox.leftovers import leftovers
from include.sandbox.models import Handin
from tests.conftest import wait_until
from tests.kit.quiet import Figure
from tests.kit.scale import count, limit, patience
from tests.sandbox.conftest import CALM_S, Node, timed
from tests.sandbox.test_run import NOTHING

SLEEPER = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '1000'])\nprint('at work', flush=True)\ntime.sleep(1000)"


def inside(node: Node, name: str) -> list[int]:
    """Processes that see this sandbox's directory, by the kernel's word."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"{name}/task /run/task " in (entry / "mountinfo").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def at_work(node: Node, kind: str = "work") -> tuple[str, str]:
    lease, name = node.lease(kind)
    node.run(name)
    wait_until("it works", lambda: b"at work" in node.call("GET", f"/containers/{name}/logs").content)
    return lease, name


@pytest.mark.sized
def test_a_revoke_ends_it(node: Node, figure: Figure) -> None:
    node.program(SLEEPER)
    gone, clean, started = [], [], []
    for _ in range(count(3, 10)):
        lease, name = node.lease()
        started.append(timed(lambda: node.run(name)))  # noqa: B023
        wait_until("it works", lambda: b"at work" in node.call("GET", f"/containers/{name}/logs").content)  # noqa: B023
        pids = inside(node, name)
        assert len(pids) >= 3
        node.revoke(lease)
        begin = time.perf_counter()
        while any(psutil.pid_exists(pid) for pid in pids):
            time.sleep(0.001)
        gone.append((time.perf_counter() - begin) * 1000)
        evidence = node.ended(lease)
        clean.append((time.perf_counter() - begin) * 1000)
        assert evidence["because"] == "revoked: a test" and b"at work" in evidence["log"] and evidence["exit_code"] == 137
    figures = {what: (round(statistics.median(ms)), round(max(ms))) for what, ms in (("start", started), ("gone", gone), ("clean", clean))}
    print(f"\n{node.engine}: ms p50/max of {len(gone)}: {figures}")
    figure(f"{node.engine}: what is revoked is gone and clean after, ms", max(clean), 5000)
    assert leftovers(node.settings) == NOTHING


def test_control_without_a_revoke_it_lives(node: Node) -> None:
    node.program(SLEEPER)
    _, name = at_work(node)
    time.sleep(1.5)
    assert len(inside(node, name)) >= 3
    assert leftovers(node.settings) == NOTHING  # it is owned


def test_an_unwatched_attempt_ends_but_not_in_the_calm_after_a_start(node: Node) -> None:
    node.program(SLEEPER)
    lease, name = at_work(node)
    node.do("UPDATE leases SET watched_at = clock_timestamp() - interval '1 h', expires_at = expires_at WHERE id = %s", lease)
    due = node.one("SELECT pg_postmaster_start_time() + make_interval(secs => %s) > clock_timestamp() AS calm", CALM_S)
    if due and due["calm"]:
        time.sleep(1)
        assert inside(node, name)
    assert node.ended(lease, 40)["because"] == "unwatched"


def test_a_lease_that_never_started_ends(node: Node) -> None:
    lease, name = node.lease()
    node.revoke(lease)
    evidence = node.ended(lease)
    assert evidence["exit_code"] is None and evidence["because"] == "revoked: a test"
    assert node.call("POST", "/containers/create", params={"name": name}).status_code == 404


@pytest.mark.sized
def test_twenty_at_once(node: Node) -> None:
    node.program(SLEEPER)
    leases = [node.lease("verify") for _ in range(count(8, 20))]
    threads = [threading.Thread(target=node.run, args=(name,)) for _, name in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    begin = time.perf_counter()
    node.do("UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = 'all' WHERE ended_at IS NULL")
    for lease, _ in leases:
        node.ended(lease, 30)
    print(f"\n{node.engine}: {len(leases)} revoked at once, all clean after {time.perf_counter() - begin:.2f} s")
    assert leftovers(node.settings) == NOTHING


# -- hand-ins --------------------------------------------------------------------------------------------------------------

HOSTILE = {
    "symlink": "import os; os.symlink('/etc/passwd', '/workspace/handin')",
    "fifo": "import os; os.mkfifo('/workspace/handin')",
    "hard link": "import os; open('/workspace/a','w').write('x'); os.link('/workspace/a', '/workspace/handin')",
    "sparse": "f = open('/workspace/handin','w'); f.truncate(65 << 20)",
    "directory": "import os; os.mkdir('/workspace/handin')",
    "socket": "import socket; socket.socket(socket.AF_UNIX).bind('/workspace/handin')",
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_hostile_handin_is_refused(node: Node, trick: str) -> None:
    node.program(HOSTILE[trick])
    lease, name = node.lease("verify")
    node.run(name)
    evidence = node.ended(lease)
    assert evidence["exit_code"] == 0 and evidence["handin_refused"] and evidence["handin_sha256"] is None
    assert not [path for path in node.settings.handins_dir.iterdir() if path.name.startswith(lease)]


def test_a_deep_and_wide_workspace_goes_away(node: Node) -> None:
    node.program("""
import os
os.chdir("/workspace")
for i in range(3000):
    os.mkdir("d"); os.chdir("d")
os.chmod(".", 0)
open("/workspace/handin", "w").write("fine")
""")
    lease, name = node.lease("verify")
    node.run(name)
    assert node.ended(lease)["handin_bytes"] == 4
    assert leftovers(node.settings) == NOTHING


def test_a_workspace_that_is_a_symlink_is_refused_and_a_good_one_is_not(tmp_path: Path) -> None:
    lease, handins = UUID(int=1), tmp_path / "handins"
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "handin").write_text("secret")
    (tmp_path / "attempt").mkdir()
    (tmp_path / "attempt" / "workspace").symlink_to(tmp_path / "real")
    assert workspace.take_handin(tmp_path / "attempt", handins, lease).refused
    (tmp_path / "attempt" / "workspace").unlink()
    (tmp_path / "real").rename(tmp_path / "attempt" / "workspace")
    assert workspace.take_handin(tmp_path / "attempt", handins, lease).size == 6
    (tmp_path / "attempt" / "workspace" / "handin").unlink()
    assert workspace.take_handin(tmp_path / "attempt", handins, lease) == Handin()


# -- kill -9 ---------------------------------------------------------------------------------------------------------------


def test_a_warden_killed_during_a_run(node: Node) -> None:
    node.program(SLEEPER + "\n")
    lease, name = at_work(node)
    before = inside(node, name)
    node.kill("warden")
    if node.engine == "bubblewrap":
        wait_until("process sandboxes die with the warden", lambda: not any(psutil.pid_exists(pid) for pid in before), 5)
    node.start_warden()
    if node.engine == "docker":  # containers live on and are adopted
        assert node.call("POST", "/containers/create", params={"name": name}).status_code == 409
        assert set(before) & set(inside(node, name))
        node.revoke(lease)
        assert node.ended(lease)["because"] == "revoked: a test"
    else:
        evidence = node.ended(lease)
        assert evidence["exit_code"] is None and evidence["because"].startswith("lost") and b"at work" in evidence["log"]
    assert leftovers(node.settings) == NOTHING


def test_an_end_while_the_warden_is_dead(node: Node) -> None:
    node.program("""
import os, time
while not os.path.exists("/run/task/go"):
    time.sleep(0.05)
open("/workspace/handin", "w").write("made alone"); print("done alone")
""")
    lease, name = node.lease("verify")
    node.run(name)
    node.kill("warden")
    (node.root / name / "task" / "go").touch()
    wait_until("it has ended alone", lambda: not inside(node, name))
    node.start_warden()
    evidence = node.ended(lease)
    if node.engine == "docker":
        assert evidence["exit_code"] == 0 and evidence["handin_bytes"] == 10 and b"done alone" in evidence["log"]
    else:
        assert evidence["exit_code"] is None and evidence["because"].startswith("lost")
    assert leftovers(node.settings) == NOTHING


@pytest.mark.sized
def test_a_warden_killed_at_many_points(node: Node) -> None:
    """A request for a sandbox, and after a growing delay SIGKILL to the warden; then a fresh one, and every lease is revoked."""
    node.program(SLEEPER)
    points = count(5, 15)
    for point in range(points):
        delay_ms = 200 * point / points
        lease, name = node.lease("work" if point % 2 else "verify")
        asker = threading.Thread(target=_ask, args=(node, name))
        asker.start()
        time.sleep(limit(delay_ms / 1000))
        if delay_ms > 100:
            node.revoke(lease)  # also in the middle of the end
            time.sleep(limit((delay_ms - 100) / 1000))
        node.kill("warden")
        asker.join()
        node.start_warden()
        if delay_ms <= 100:
            node.revoke(lease)
        node.ended(lease)
        assert leftovers(node.settings) == NOTHING, delay_ms
        assert [path.name for path in node.root.iterdir() if not path.name.startswith(".toolbox")] == []
    loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, check=True).stdout
    assert str(node.root) not in loops


def _ask(node: Node, name: str) -> None:
    try:
        node.call("POST", "/containers/create", params={"name": name})
        node.call("POST", f"/containers/{name}/start")
    except Exception:
        pass


def test_control_leftovers_are_counted(node: Node) -> None:
    """Without a warden, and with the lease's row ended behind its back, the sandbox is seen as left over; the next warden removes it."""
    node.program(SLEEPER)
    lease, _ = at_work(node)
    if node.engine == "docker":
        node.kill("warden")
    with node.halted("warden") if node.engine == "bubblewrap" else nullcontext():  # it would die with the warden
        node.do("INSERT INTO evidence (lease) VALUES (%s)", lease)
        node.do("UPDATE leases SET ended_at = clock_timestamp() WHERE id = %s", lease)
        found = leftovers(node.settings)
        assert found["directories"] == found["mounts"] == found["sockets"] == 1 and found["processes"] >= 3
        assert found["containers"] == (1 if node.engine == "docker" else 0)
        if node.engine == "bubblewrap":
            node.kill("warden")
    node.start_warden()
    assert leftovers(node.settings) == NOTHING


def test_a_container_of_another_home_is_left_alone(node: Node) -> None:
    if node.engine != "docker":
        pytest.skip("process sandboxes die with their warden")
    label = f"{profile.OWNER_LABEL}=somebodyelse:local"
    name = f"airlock-stranger-{os.getpid()}"
    subprocess.run(
        ["docker", "run", "-d", "--name", name, "--label", label, "airlock/worker:latest", "sleep", "60"], check=True, capture_output=True
    )
    try:
        node.kill("warden")
        node.start_warden()
        assert json.loads(subprocess.check_output(["docker", "inspect", name]))[0]["State"]["Running"]
        assert folders.owner(node.settings) not in label
    finally:
        subprocess.run(["docker", "rm", "-f", name], check=True, capture_output=True)


def test_postgresql_away_nothing_is_judged(node: Node) -> None:
    """The warden's connections are cut and refused for a while: the sandbox lives on, the API says 503, and afterwards a revoke works."""
    node.program(SLEEPER)
    lease, name = at_work(node)
    database = node.settings.pg_database
    admin = node.settings.model_copy(update={"pg_database": "postgres"})
    import psycopg

    with psycopg.connect(os.environ["AIRLOCK_TEST_ADMIN_DSN"], autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,))
        time.sleep(1.5)
        assert inside(node, name) and node.children["warden"].poll() is None and admin
        assert node.call("POST", "/containers/create", params={"name": "airlock-x-1"}).status_code == 503
        connection.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
    node.revoke(lease)
    assert node.ended(lease)["because"] == "revoked: a test"


def test_a_term_asks_the_warden_to_stop_and_the_next_one_goes_on(node: Node) -> None:
    node.program(SLEEPER)
    lease, _ = at_work(node)
    warden = node.children.pop("warden")
    warden.send_signal(signal.SIGTERM)
    assert warden.wait(patience(10)) == 0
    node.start_warden()
    node.revoke(lease)
    node.ended(lease)
    assert leftovers(node.settings) == NOTHING
