"""Where the seconds of a goal went: every interval is told once, so that the columns add up to what the clock says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from include.drills.bench import phases
from include.drills.bench.phases import Column, Moment
from include.flow import goal_dag, plain
from include.plans.models import Plan, Task
from tests.flow import probe

START = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = (
    "admit.starts", "work.granted", "start.starts", "work.started", "worker.ready", "worker.asks", "model.sent", "model.settled", "tests.worker",
    "worker.asks", "model.sent", "model.settled", "worker.ends", "work.evidence", "task.VERIFYING", "lease.ends", "verify.starts",
    "verify.granted", "verify.started", "verify.evidence", "tests.verifier", "verdict.asked", "verdict.judged",
)  # fmt: skip
DETAIL = {"tests.worker": "400", "tests.verifier": "300", "model.settled": "run_tests"}


def told() -> list[Moment]:
    """A goal of two tasks, a moment a second; the second task is sent back once. The last turns of the workers are ``finish``."""
    kinds = [("", kind) for kind in ("run.queued", "intake.starts", "model.settled", "plan.stored", "run.starts")]
    kinds += [("a", kind) for kind in (*ATTEMPT, "task.MERGE_QUEUE", "merge.starts", "merge.ends")]
    kinds += [
        ("b", kind) for kind in (*ATTEMPT, "rework.decided", "rework.cleared", *ATTEMPT, "task.MERGE_QUEUE", "merge.starts", "merge.ends")
    ]
    kinds += [("", kind) for kind in ("land.starts", "land.ends", "report.starts", "report.ends", "outcome.starts", "outcome.ends")]
    moments, asked = [], 0
    for second, (key, kind) in enumerate(kinds):
        asked = asked + 1 if kind == "model.settled" and key else 0 if kind == "worker.ends" else asked
        detail = "finish" if kind == "model.settled" and asked == 2 else DETAIL.get(kind, "admit,start,lease,verify,merge")
        moments.append(Moment(key, START + timedelta(seconds=second), kind, detail))
    return moments


def test_every_second_is_told_once() -> None:
    moments = told()
    found = phases.columns(moments, {"a": (), "b": ("a",)})
    assert [column.name for column in found] == ["goal", "a", "b", "b_2"]
    assert sum(column.seconds for column in found) == (moments[-1].at - moments[0].at).total_seconds()
    # control: an interval that nothing is said of is missed
    assert sum(column.seconds for column in phases.columns(moments, {"a": ()})) < (moments[-1].at - moments[0].at).total_seconds()


def test_model_and_tests_are_not_a_tasks_own() -> None:
    _, first, *_ = phases.columns(told(), {"a": (), "b": ("a",)})
    assert first.phases[phases.MODEL] == 2 and first.phases[phases.TESTS_AT_WORK] == 0.4
    assert first.phases[phases.TESTS_VERIFIED] == 0.3
    assert first.phases["worker: run_tests"] == 1.6 and first.phases["verify: clone, report, evidence"] == 1.7
    assert first.phases["worker: finish"] == 1 and first.own == first.seconds - 2.7


def test_the_table_has_the_order_of_a_goal_and_its_sums() -> None:
    found = [
        Column("goal", {"report: summary": 0.25}),
        Column("a", {"merge: compare and swap": 0.5, "worker: git_commit": 1.0, "model": 2.0}),
    ]
    rows = phases.rows(found, {"a": 3.0})
    assert [row["phase"] for row in rows] == [
        "model", "report: summary", "worker: git_commit", "merge: compare and swap",
        "in all", "its own: without model and tests", "plain Airflow, the same steps",
    ]  # fmt: skip
    assert [tuple(row.values())[1:] for row in rows[-3:]] == [(3750, 250, 3500), (1750, 250, 1500), (3000, None, 3000)]


def test_the_plain_dag_has_the_shape_of_the_goals() -> None:
    tasks = (Task(key="a", title="A", prompt="p"), Task(key="b", title="B", prompt="p", depends_on=("a",)))
    goal = {"dag_id": "d", "title": "t", "text": "", "repository": "r", "base_branch": "main", "agent": "jarvis"}
    document = json.dumps({"goal": goal, "revision": 1, "plan": Plan(summary="s", tasks=tasks).model_dump_json()})
    ours, same = goal_dag.build(document, probe.STEPS), plain.build(document)
    assert {name: step.downstream_task_ids for name, step in ours.task_dict.items()} == {
        name: step.downstream_task_ids for name, step in same.task_dict.items()
    }
    assert {type(step) for step in same.task_dict.values()} == {plain.PlainStep} and len(same.task_dict) == 13
