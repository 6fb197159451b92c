"""Goals from end to end on real PostgreSQL, Valkey, Airflow and containers: what lands, what is refused, and what a person reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from include.settings import load
from tests.conftest import ROOT, wait_until
from tests.kit.scale import patience
from tests.kit.stack import GIT, Stack, repository

pytestmark = pytest.mark.slow


def log(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run([*GIT, "-C", str(folder), "log", "--format=%H", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_a_goal_lands_and_the_checked_out_branch_comes_forward(containers: Stack, tiny: Path) -> None:
    before = log(tiny)
    ended = containers.wait(containers.submit("E2E good: add subtraction", tiny))
    assert ended["state"] == "COMPLETED", ended["reason"]
    assert log(tiny)[0] == ended["landed_commit"] and log(tiny)[-1] == before[0]
    assert (tiny / "tests" / "test_sub.py").exists()
    assert [verdict["green"] for verdict in ended["verdicts"]] == [True]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=tiny, capture_output=True, text=True, check=False
    )
    assert "3 passed" in done.stdout


def test_a_repository_that_nobody_here_wrote(containers: Stack, tmp_path: Path) -> None:
    wanted = ["-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "inflection==0.5.1", "-d", str(tmp_path)]
    for python in (sys.executable, f"{sys.base_prefix}/bin/python3"):  # an environment made by uv has no pip
        got = subprocess.run([python, *wanted], cwd=tmp_path, capture_output=True, text=True, check=False)
    if not list(tmp_path.glob("inflection-*.tar.gz")):
        pytest.skip(f"the source distribution could not be had: {got.stderr[-300:]}")
    with tarfile.open(next(tmp_path.glob("inflection-*.tar.gz"))) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    folder = repository(next((tmp_path / "source").iterdir()), tmp_path / "inflection")
    ended = containers.wait(containers.submit("E2E foreign: count with a noun", folder))
    assert ended["state"] == "COMPLETED", ended["reason"]
    tests = containers.sql("SELECT data FROM artifacts WHERE goal_run = %s AND type = 'test_result' AND source = 'verifier'", ended["run"])
    assert tests[0]["data"]["passed"] == 456


def test_uncommitted_changes_stay_and_the_result_waits_on_its_branch(containers: Stack, tiny: Path) -> None:
    before = log(tiny)
    (tiny / "calc.py").write_text((tiny / "calc.py").read_text() + "\n# not committed\n")
    submitted = containers.run("goal", "submit", "E2E good: while work is open", "--repo", str(tiny), "--json")
    assert "not committed" in submitted.stderr
    ended = containers.wait(json.loads(submitted.stdout)["run"])
    assert ended["state"] == "COMPLETED" and ended["goal_branch"] in ended["landing_note"]
    assert log(tiny) == before
    assert log(tiny, ended["goal_branch"])[0] == ended["landed_commit"]


@pytest.mark.parametrize(
    ("goal", "state", "words"),
    [
        ("E2E second plan", "COMPLETED", ""),
        ("E2E no plan", "FAILED", "circle"),
        ("E2E wrong key", "ESCALATED", "key"),
        ("E2E liar", "FAILED", "tests fail"),
        ("E2E outside", "FAILED", "calc2.py"),
    ],
)
def test_whatever_goes_wrong_ends_in_a_stated_outcome(containers: Stack, tiny: Path, goal: str, state: str, words: str) -> None:
    before = log(tiny)
    ended = containers.wait(containers.submit(f"{goal}: in words", tiny))
    assert (ended["state"], words in ended["reason"]) == (state, True), ended["reason"]
    assert (log(tiny) == before) == (state != "COMPLETED")
    ended_red = [row for row in containers.sql("SELECT * FROM merges WHERE task_run LIKE %s", f"{ended['run']}-%")]
    assert bool(ended_red) == (state == "COMPLETED")


def test_a_conflict_is_worked_again_on_what_was_merged(containers: Stack, tiny: Path) -> None:
    ended = containers.wait(containers.submit("E2E conflict: both change one line", tiny))
    assert ended["state"] == "COMPLETED", ended["reason"]
    assert "# left and right" in (tiny / "calc.py").read_text()
    attempts = containers.sql("SELECT failure, counted FROM attempts WHERE task_run LIKE %s ORDER BY created_at", f"{ended['run']}-%")
    assert sorted(str(attempt["failure"]) for attempt in attempts) == ["None", "None", "conflict"]
    steps = wait_until("the run ends", lambda: containers.steps_when_ended(ended["dag_id"], ended["run_id"]), 60)
    assert {step["state"] for step in steps.values()} == {"success"}, steps


def test_a_lost_worker_is_replaced_and_does_not_count(containers: Stack, tiny: Path) -> None:
    run = containers.submit("E2E again: the container is killed", tiny)
    live = wait_until(
        "a worker works",
        lambda: containers.sql(
            "SELECT l.sandbox, l.task_run FROM leases l JOIN attempts a USING (task_run, epoch) WHERE l.goal_run = %s AND a.state = 'WORKING'",
            run,
        ),
        90,
    )
    subprocess.run(["docker", "kill", live[0]["sandbox"]], check=True, capture_output=True)
    ended = containers.wait(run)
    assert ended["state"] == "COMPLETED", ended["reason"]
    attempts = containers.sql("SELECT epoch, failure, counted FROM attempts WHERE task_run = %s ORDER BY epoch", live[0]["task_run"])
    assert [tuple(attempt.values()) for attempt in attempts] == [(1, "lost", False), (2, None, None)]


def test_a_lost_worker_is_resumed_from_its_commit(containers: Stack, tiny: Path) -> None:
    run = containers.submit("E2E resumed: the container is killed after a commit", tiny)
    live = wait_until(
        "the worker has committed and asked for its second turn",
        lambda: containers.sql(
            "SELECT l.sandbox, l.task_run, l.input_commit FROM leases l JOIN transcripts t USING (task_run, epoch)"
            " WHERE l.goal_run = %s AND t.position = 3",
            run,
        ),
        90,
    )[0]
    subprocess.run(["docker", "kill", live["sandbox"]], check=True, capture_output=True)
    ended = containers.wait(run)
    assert ended["state"] == "COMPLETED", ended["reason"]
    attempts = containers.sql(
        "SELECT a.epoch, a.failure, a.resumed_from, l.input_commit, (SELECT count(*) FROM model_calls c WHERE c.lease = l.id) AS calls"
        " FROM attempts a JOIN leases l USING (task_run, epoch) WHERE a.task_run = %s AND l.kind = 'work' ORDER BY a.epoch",
        live["task_run"],
    )
    assert [(a["epoch"], a["failure"], a["resumed_from"], a["calls"]) for a in attempts] == [(1, "lost", None, 2), (2, None, 1, 1)]
    assert attempts[0]["input_commit"] == live["input_commit"] != attempts[1]["input_commit"]
    assert (tiny / "tests" / "test_more.py").exists()


def test_each_task_can_land_by_itself(containers: Stack, tiny: Path) -> None:
    ended = containers.wait(containers.submit("E2E good: landed at once", tiny, "--landing", "per_task"))
    assert ended["state"] == "COMPLETED", ended["reason"]
    assert (tiny / "tests" / "test_sub.py").exists()


def test_a_worker_that_never_finishes_ends_with_its_deadline(containers: Stack, tiny: Path) -> None:
    plan = tiny.parent / "plan.json"
    plan.write_text('{"summary": "s", "tasks": [{"key": "slow", "title": "Slow", "prompt": "p", "lease": {"max_minutes": 1}}]}')
    ended = containers.wait(containers.submit("E2E never finishes", tiny, "--plan", str(plan), "--deadline", "60s"))
    assert ended["state"] == "ESCALATED" and "deadline" in ended["reason"], ended["reason"]


def test_the_endpoint_is_down(containers: Stack, tiny: Path) -> None:
    settings = load(containers.home)
    settings.keys_dir.mkdir(exist_ok=True)
    (settings.keys_dir / "atlas.key").write_text("sk-none")
    environment = {
        **containers.environment,
        "AIRLOCK_OFFLINE": "false",
        "AIRLOCK_ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        "AIRLOCK_MODEL_ATTEMPTS": "2",
    }
    broker = subprocess.Popen(
        [sys.executable, "-m", "include.broker", "--agent", "atlas"], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        containers.run("repo", "add", "down", str(tiny))
        containers.airflow.trigger("submit_goal", "e2e-down", {"goal": "E2E good: nobody answers", "repository": "down", "agent": "atlas"})
        run = wait_until(
            "the goal is there",
            lambda: containers.sql("SELECT r.id FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE g.agent = 'atlas'"),
            60,
        )
        ended = containers.wait(run[0]["id"])
        assert ended["state"] == "ESCALATED" and "127.0.0.1:9" in ended["reason"], ended["reason"]
    finally:
        broker.terminate()
        broker.wait(20)
        os.unlink(settings.keys_dir / "atlas.key")


def test_a_submission_that_a_person_stops_leaves_no_goal_without_an_end(containers: Stack, tiny: Path) -> None:
    containers.run("repo", "add", "stopped", str(tiny))
    containers.airflow.trigger("submit_goal", "e2e-stopped", {"goal": "E2E slow plan: stopped by hand", "repository": "stopped"})

    def planning() -> list[dict[str, Any]]:
        return containers.sql(
            "SELECT r.id FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE g.repository = 'stopped' AND r.state = 'PLANNING'"
        )

    run = wait_until("it plans", planning, 60)[0]["id"]
    containers.ask("PATCH", "/dags/submit_goal/dagRuns/e2e-stopped/taskInstances/plan", {"new_state": "failed"})
    ended = containers.wait(run)
    assert ended["state"] == "CANCELLED" and "did not finish" in ended["reason"], ended


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"goal": "x", "repository": "nowhere"}, "repository: 'nowhere' is not registered"),
        ({"goal": "x", "repository": "known", "base": "mian"}, "Did you mean 'main'?"),
        ({"goal": "x", "repository": "known", "agent": "jarvi"}, "Did you mean 'jarvis'?"),
        ({"goal": "x", "repository": "untested"}, "cannot be judged"),
    ],
)
def test_bad_input_ends_the_first_step_with_the_field_and_the_remedy(
    containers: Stack, tiny: Path, tmp_path: Path, conf: dict[str, str], words: str
) -> None:
    if conf["repository"] != "nowhere":
        if conf["repository"] == "untested":
            subprocess.run([*GIT, "-C", str(tiny), "rm", "-rq", "tests"], check=True)
            subprocess.run([*GIT, "-C", str(tiny), "commit", "-qm", "No tests"], check=True)
        name = f"{conf['repository']}-{abs(hash(words)) % 9999}"
        assert containers.run("repo", "add", name, str(tiny)).returncode == 0
        conf = {**conf, "repository": name}
    run = f"bad-{time.monotonic_ns()}"
    containers.airflow.trigger("submit_goal", run, conf)
    steps = wait_until("the run ends", lambda: containers.steps_when_ended("submit_goal", run), 60)
    assert steps["intake"]["state"] == "failed"
    assert {name: step["state"] for name, step in steps.items()} == {
        "intake": "failed", "plan": "upstream_failed", "launch": "upstream_failed", "wait": "failed"
    }  # fmt: skip
    assert words in containers.step_log("submit_goal", run, "intake")
    assert steps["intake"]["try_number"] == 1 and steps["intake"]["duration"] < patience(10)  # 5 s on a quiet machine
