"""The start step and the client against a real warden: create, adopt, a lease that is over, and a warden that is away."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from include.errors import SandboxFailed, Unavailable
from include.sandbox.client import ensure_sandbox
from tests.kit.scale import patience
from tests.sandbox.conftest import Node, timed

SLEEPER = "import time; time.sleep(1000)"


def execute(node: Node, sandbox: str) -> None:
    from include.flow.steps import base, start  # here, as it takes seconds to load: not every process of a test run needs it

    key = sandbox.removeprefix(f"airlock-{node.goal_run}-").removesuffix("-1")
    step = start.StartStep(task_id="start", task_key=key)
    assert step.retries == base.RETRIES["retries"] and step.template_fields == ()
    context: Any = {"ti": SimpleNamespace(dag_id="goal_sample", run_id="run1", task_id=f"{key}.start", id="ti")}  # no Airflow answers here
    step.execute(context)


def test_it_starts_and_adopts(node: Node) -> None:
    node.program(SLEEPER)
    _, name = node.lease()
    first = timed(lambda: execute(node, name))
    assert node.call("GET", f"/containers/{name}/json").json()["State"]["Running"]
    again = timed(lambda: execute(node, name))
    print(f"\n{node.engine}: start step {first:.0f} ms, adopting {again:.0f} ms")
    row = node.one("SELECT started_at FROM leases WHERE sandbox = %s", name)
    assert row and row["started_at"]


def test_a_lease_that_is_over_is_the_next_steps_matter(node: Node) -> None:
    lease, name = node.lease()
    node.revoke(lease)
    execute(node, name)
    assert node.ended(lease)["exit_code"] is None


def test_a_warden_that_comes_back_is_waited_for(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.flow.steps.start._PATIENCE_S", patience(20.0))
    node.program(SLEEPER)
    _, name = node.lease()
    node.kill("warden")
    later = threading.Timer(0.5, node.start_warden)
    later.start()
    execute(node, name)
    later.join()
    assert node.call("GET", f"/containers/{name}/json").json()["State"]["Running"]


def test_a_warden_that_stays_away_is_said(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.flow.steps.start._PATIENCE_S", 1.0)
    _, name = node.lease()
    node.kill("warden")
    begin = time.monotonic()
    with pytest.raises(Unavailable, match="warden did not answer"):
        execute(node, name)
    assert time.monotonic() - begin < patience(10)
    with pytest.raises(Unavailable, match="warden does not answer"):
        ensure_sandbox("local", name)


def test_the_client(node: Node) -> None:
    node.program(SLEEPER)
    lease, name = node.lease("verify")
    ensure_sandbox("local", name)
    ensure_sandbox("local", name)
    assert node.call("GET", f"/containers/{name}/json").json()["State"]["Running"]
    node.revoke(lease)
    node.ended(lease)
    ensure_sandbox("local", name)  # its evidence says what became of it
    assert node.call("GET", f"/containers/{name}/json").status_code == 404


def test_a_missing_bundle_is_said(node: Node) -> None:
    _, name = node.lease("verify")
    node.do("UPDATE leases SET input_commit = 'gone' WHERE sandbox = %s", name)
    with pytest.raises(SandboxFailed, match=r"gone\.bundle is missing"):
        ensure_sandbox("local", name)
