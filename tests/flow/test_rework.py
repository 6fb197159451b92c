"""Rework by the one door on a real Airflow: nothing ever fails, and there is exactly one new attempt, whatever is killed or stopped."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from include.clock import new_id
from tests.conftest import wait_until
from tests.flow import probe
from tests.flow.conftest import Airflow, plan
from tests.kit.scale import count, limit, patience
from tests.kit.waiting import poll

GROUP = ["admit", "start", "lease", "verify", "merge"]
END = [("land", 0), ("report", 0), ("outcome", 0)]


def attempt(key: str, epoch: int, *steps: str) -> list[tuple[str, int]]:
    return [(f"{key}.{step}", epoch) for step in steps or GROUP]


def holds_for_ever(airflow: Airflow, dag_id: str, run_id: str, attempts: int = 2) -> None:
    """What every rework must leave behind: a green run, one new attempt, no failure anywhere, one report at the very end."""
    ran = airflow.probes(dag_id)
    admits = [epoch for step, epoch in ran if step == "a.admit"]
    assert admits == list(range(1, attempts + 1)), ran
    assert airflow.state(dag_id, run_id) == "success"
    bad = {"failed", "upstream_failed", "up_for_retry", "skipped"}
    assert not airflow.states[run_id] & bad, airflow.states[run_id]
    assert ran[-3:] == END and [step for step, _ in ran].count("report") == 1, ran
    assert [epoch for step, epoch in ran if step == "b.admit"] in ([1], [])


def decided(airflow: Airflow, dag_id: str, epoch: int = 1, seconds: float = 40) -> dict[str, Any]:
    """The rework that a step of this run recorded, as soon as it has."""
    query = "SELECT r.* FROM reworks r JOIN task_runs t ON t.id = r.task_run JOIN goal_runs g ON g.id = t.goal_run WHERE g.dag_id = %s AND r.epoch = %s"
    if row := poll(lambda: airflow.database.execute(query, (dag_id, epoch)).fetchone(), seconds, 0.005):
        return dict(row)
    pytest.fail(f"no rework was decided in {dag_id}: {airflow.probes(dag_id)}")


def ask(airflow: Airflow, dag_id: str, run_id: str, record: dict[str, Any]) -> httpx.Response:
    body = {"rework": str(record["id"]), "run_id": run_id, "ti_id": record["ti_id"]}
    return httpx.post(
        f"{airflow.settings.api_url}/airlock/dags/{dag_id}/rework",
        json=body,
        headers=dict(airflow.http.headers),
        timeout=patience(30),
        trust_env=False,
    )


def test_lost_red_and_conflict(airflow: Airflow) -> None:
    """A lease, a verify, a merge and a merge whose own ask is not answered: four attempts, then a second verify of the same epoch."""
    dag = airflow.goal(plan("a", "b", b=["a"]))
    for step, epoch, how in [
        ("a.lease", 1, "clear"),
        ("a.verify", 2, "clear"),
        ("a.merge", 3, "defer"),
        ("b.merge", 1, "clear once verify"),
    ]:
        airflow.script(dag, step, epoch, how)
    run = airflow.run(dag, ["a", "b"])
    airflow.finish(dag, run)
    expected = [
        *attempt("a", 1, "admit", "start", "lease"),
        *attempt("a", 2, "admit", "start", "lease", "verify"),
        *attempt("a", 3),
        *attempt("a", 4),
        *attempt("b", 1),
        *attempt("b", 1, "verify", "merge"),
        *END,
    ]
    assert airflow.probes(dag) == expected
    holds_for_ever(airflow, dag, run, attempts=4)
    times = airflow.database.execute(
        "SELECT r.epoch, extract(epoch FROM r.cleared_at - r.created_at) AS clear_s, extract(epoch FROM p.at - r.created_at) AS admit_s"
        " FROM reworks r JOIN task_runs t ON t.id = r.task_run JOIN goal_runs g ON g.id = t.goal_run"
        " LEFT JOIN probe p ON p.dag_id = g.dag_id AND p.step = t.key || '.admit' AND p.epoch = r.epoch + 1 WHERE g.dag_id = %s ORDER BY r.created_at",
        (dag,),
    )
    print(
        "\ndecision to clear, to the next admit:",
        [(row["epoch"], round(row["clear_s"], 2), row["admit_s"] and round(row["admit_s"], 2)) for row in times],
    )


def test_a_failure_is_red(airflow: Airflow) -> None:
    """The control of the above: a step that does fail fails what is downstream, and the run, and the report still runs."""
    dag = airflow.goal(plan("a", "b", b=["a"]))
    airflow.script(dag, "a.verify", 1, "fail")
    airflow.script(dag, "outcome", 0, "fail")
    run = airflow.run(dag, ["a", "b"])
    assert airflow.finish(dag, run) == "failed"
    assert {"failed", "upstream_failed"} <= airflow.states[run]
    assert ("report", 0) in airflow.probes(dag)


def test_eight_asks_and_a_late_one(airflow: Airflow) -> None:
    dag = airflow.goal(plan("a", "b", b=["a"]))
    airflow.script(dag, "a.lease", 1, "decide")
    run = airflow.run(dag, ["a", "b"])
    record = decided(airflow, dag)
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.json() for answer in pool.map(lambda _: ask(airflow, dag, run, record), range(8))]
    assert sorted(answer["cleared"] for answer in answers) == [0] * 7 + [3], answers
    wait_until("the second attempt is admitted", lambda: ("a.admit", 2) in airflow.probes(dag))
    late = ask(airflow, dag, run, record).json()
    assert late == {"cleared": 0, "outcome": "done before"}
    airflow.finish(dag, run)
    holds_for_ever(airflow, dag, run)


def test_the_door_refuses(airflow: Airflow) -> None:
    """Without a token, with a cookie only, of another step, of another run, of an old epoch; and core's own clear as the control."""
    dag = airflow.goal(plan("a", "b", b=["a"]))
    airflow.script(dag, "a.lease", 1, "decide")
    run = airflow.run(dag, ["a", "b"])
    record = decided(airflow, dag)
    url = f"{airflow.settings.api_url}/airlock/dags/{dag}/rework"
    body = {"rework": str(record["id"]), "run_id": run, "ti_id": record["ti_id"]}
    token = airflow.http.headers["Authorization"].split()[1]
    assert httpx.post(url, json=body, trust_env=False).status_code == 401
    assert httpx.post(url, json=body, cookies={"_token": token}, trust_env=False).status_code == 401
    assert (
        httpx.get(f"{airflow.settings.api_url}/api/v2/dags", cookies={"_token": token}, trust_env=False).status_code == 200
    )  # the cookie is good
    assert ask(airflow, dag, run, {**record, "ti_id": str(new_id())}).status_code == 403
    assert ask(airflow, dag, "another", record).status_code == 404
    assert ask(airflow, dag, run, {**record, "id": new_id()}).status_code == 404
    airflow.database.execute("UPDATE task_runs SET epoch = 2 WHERE id = %s", (record["task_run"],))
    assert ask(airflow, dag, run, record).json() == {"cleared": 0, "outcome": "stale epoch"}
    airflow.http.patch(f"/api/v2/dags/{dag}/dagRuns/{run}", json={"state": "failed"}).raise_for_status()
    big = httpx.post(url, content=b"x" * (1 << 20) + b"x", headers=dict(airflow.http.headers), trust_env=False)
    assert big.status_code == 413
    chunked = httpx.post(
        f"{airflow.settings.api_url}/api/v2/dags/{dag}/dagRuns",
        content=iter([b"x" * 65536] * 17),
        headers=dict(airflow.http.headers),
        trust_env=False,
    )
    assert chunked.status_code in (400, 413)


@contextmanager
def stopped(pid: int, seconds: float) -> Iterator[None]:
    """SIGSTOP a component (with its process group, as a frozen machine would) and let it go on after a while."""
    os.killpg(pid, signal.SIGSTOP)
    timer = threading.Timer(seconds, lambda: os.killpg(pid, signal.SIGCONT))
    timer.start()
    yield
    timer.join()


def killed(airflow: Airflow, component: str) -> None:
    airflow.kill(component)


def frozen(airflow: Airflow, component: str) -> None:
    with stopped(airflow.pid(component), limit(4)):
        pass


AROUND = [
    ("triggerer", killed), ("scheduler", frozen), ("triggerer", frozen), ("scheduler", killed), ("api-server", killed), ("api-server", frozen)
]  # fmt: skip
INSIDE = [("before", frozen), ("between", killed), ("before", killed), ("between", frozen)]


@pytest.mark.sized
@pytest.mark.slow
@pytest.mark.parametrize(("component", "how"), AROUND[: count(2, 6)])
def test_around_the_clear(airflow: Airflow, component: str, how: Callable[[Airflow, str], None]) -> None:
    """A lease decides for rework, and at this moment a component is killed or frozen for 4 s (of a free machine)."""
    dag = airflow.goal(plan("a"))
    airflow.script(dag, "a.lease", 1, "clear")
    run = airflow.run(dag, ["a"])
    record = decided(airflow, dag)
    how(airflow, component)
    print(f"\n{how.__name__} {component}: next attempt after {next_attempt(airflow, dag, record):.1f} s")
    airflow.finish(dag, run, 90)
    holds_for_ever(airflow, dag, run)


@pytest.mark.sized
@pytest.mark.slow
@pytest.mark.parametrize(("where", "how"), INSIDE[: count(2, 4)])
def test_inside_the_door(airflow: Airflow, where: str, how: Callable[[Airflow, str], None]) -> None:
    """The API server is killed or frozen inside the door: before Airflow's commit, or between Airflow's commit and ours."""
    dag = airflow.goal(plan("a"))
    airflow.script(dag, "a.lease", 1, "clear")
    with {"before": held_run, "between": slow_mark}[where](airflow, dag) as (run, inside):
        record = decided(airflow, dag)
        wait_until(f"the door stands {where} the commits", inside)
        how(airflow, "api-server")
    print(f"\n{how.__name__} {where}: next attempt after {next_attempt(airflow, dag, record):.1f} s")
    airflow.finish(dag, run, 90)
    holds_for_ever(airflow, dag, run)
    assert ask(airflow, dag, run, record).json()["cleared"] == 0  # a late one, also where the record was never marked


@contextmanager
def held_run(airflow: Airflow, dag_id: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The door waits for the lock on the run's row."""
    run = airflow.run(dag_id, ["a"])
    wait_until("the lease is reached", lambda: ("a.start", 1) in airflow.probes(dag_id))
    wait_until("start has ended", lambda: airflow.steps(dag_id, run)["a.lease"]["state"] == "deferred")
    with psycopg.connect(airflow.settings.dsn("owner", "airflow")) as connection:
        connection.execute("SELECT FROM dag_run WHERE run_id = %s FOR UPDATE", (run,))
        yield run, lambda: waits("%dag_run%FOR UPDATE%")


@contextmanager
def slow_mark(airflow: Airflow, dag_id: str) -> Iterator[tuple[str, Callable[[], bool]]]:
    """The door takes 5 s for the update that marks the record."""
    airflow.database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(5); RETURN NEW; END';"
        "CREATE TRIGGER slow BEFORE UPDATE OF cleared_at ON reworks FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    try:
        yield airflow.run(dag_id, ["a"]), lambda: waits("UPDATE reworks SET cleared_at%")
    finally:
        airflow.database.execute("DROP TRIGGER slow ON reworks; DROP FUNCTION slow()")


def waits(query: str) -> bool:
    """True while some session runs a statement like this. Only a superuser sees the statements of others."""
    with psycopg.connect(os.environ["AIRLOCK_TEST_ADMIN_DSN"]) as admin:
        found = admin.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND state = 'active' AND pid <> pg_backend_pid()", (query,)
        )
        return bool(found.fetchone())


def next_attempt(airflow: Airflow, dag_id: str, record: dict[str, Any]) -> float:
    wait_until("the next attempt is admitted", lambda: ("a.admit", 2) in airflow.probes(dag_id), 60)
    row = airflow.database.execute("SELECT at FROM probe WHERE (dag_id, step, epoch) = (%s, 'a.admit', 2)", (dag_id,)).fetchone()
    return float((row["at"] - record["created_at"]).total_seconds())


def test_probe_is_not_the_door() -> None:
    """The probe decides, and only the door clears: no code of the tests touches Airflow's task instances."""
    with open(probe.__file__) as source:
        assert "clear_task_instances" not in source.read()
