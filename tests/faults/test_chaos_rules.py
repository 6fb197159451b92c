"""What chaos counts: sound facts pass, and each thing that may go wrong breaks its bar, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from include.drills.chaos import report
from include.drills.chaos.models import ChaosReport, ClientGoal, Event, Fault, Options, Remains, Run, TaskEnd
from include.drills.chaos.rules import bound, judge, quantile
from include.governance.models import Chain

CHAIN = Chain(entries=3, head="c", broken_at=None, problem=None)


def walk(machine: str, subject: str, *states: str) -> tuple[Event, ...]:
    befores = ("", *states)
    return tuple(
        Event(machine=machine, subject=subject, before=before, after=after) for before, after in zip(befores, states, strict=False)
    )


def run(key: str, **other: Any) -> Run:
    sound = {"run": f"g-{key}", "state": "COMPLETED", "reason": "", "landing": "per_goal", "ended": True, "wall_s": 3.0}
    return Run.model_validate({"key": key, **sound, **other})


def task(id_: str, **other: Any) -> TaskEnd:
    return TaskEnd.model_validate({"id": id_, "run": id_[:3], "state": "COMPLETED", "epoch": 1, "lost": 0, "counted": 0, **other})


ASKED = tuple(ClientGoal(key=key, tasks=2, calls=calls, acknowledged=True) for key, calls in (("a", 1), ("b", 3)))
TASKS = ("g-a-1", "g-a-2", "g-b-1", "g-b-2")
EVENTS = (
    *walk("goal_run", "g-a", "SUBMITTED", "PLANNING", "RUNNING", "LANDING", "COMPLETED"),
    *walk("task_run", "g-a-1", "PENDING", "POLICY_CHECK", "LEASED", "PENDING_RETRY", "POLICY_CHECK", "LEASED", "EXECUTING"),
)
SOUND: dict[str, Any] = {
    "asked": ASKED,
    "runs": (run("a"), run("b")),
    "tasks": (task("g-a-1", lost=2), *(task(id_) for id_ in TASKS[1:])),
    "merges": TASKS,
    "on_main": TASKS,
    "kept": (),
    "events": EVENTS,
    "audit": CHAIN,
    "leftovers": {"containers": 0, "leases": 0},
    "overspent": {"goal_runs": 0, "leases": 0},
    "open_calls": 0,
    "stale": {"merges": 0},
    "main_is_green": True,
}


def broken(**other: Any) -> set[str]:
    return {bar.name for bar in judge(Remains.model_validate({**SOUND, **other})).bars if not bar.holds}


def test_sound_facts_hold_and_are_counted() -> None:
    judgement = judge(Remains.model_validate(SOUND))
    assert judgement.holds
    assert tuple(judgement.goals.model_dump().values()) == (2, 2, 0, 0, 0, 1)  # b was submitted three times: recovered
    assert tuple(judgement.merges.model_dump().values()) == (4, 4, 0, 0, 0, 1)  # one merged although two attempts were lost


WRONG: list[tuple[dict[str, Any], set[str]]] = [
    ({"runs": (run("a"),)}, {"goals lost"}),
    ({"runs": (run("a"), run("b", ended=False, state="RUNNING"))}, {"goals lost"}),
    ({"runs": (run("a"), run("b"), run("x", run="g-x", state="FAILED"))}, {"goals unexpected"}),
    ({"runs": (run("a"), run("b"), run("b", run="g-c", state="FAILED"))}, {"goals duplicated"}),
    ({"asked": (ASKED[0], ASKED[1].model_copy(update={"acknowledged": False}))}, {"goals not taken in"}),
    ({"on_main": TASKS[1:]}, {"merges lost"}),
    ({"merges": TASKS[1:]}, {"merges lost", "merges unexpected"}),
    ({"tasks": SOUND["tasks"][1:], "merges": TASKS[1:], "on_main": TASKS[1:]}, {"merges lost"}),
    ({"on_main": (*TASKS, "g-a-3")}, {"merges unexpected"}),
    ({"on_main": (*TASKS, "g-a-1")}, {"merged twice"}),
    ({"merges": (*TASKS, "g-a-1")}, {"merged twice"}),
    ({"runs": (run("a"), run("b", state="FAILED")), "on_main": TASKS[:2], "kept": TASKS[2:]}, {"merged, not landed"}),
    ({"runs": (run("a"), run("b", state="ESCALATED")), "on_main": TASKS[:2], "kept": TASKS[2:]}, {"merged, not landed"}),
    ({"events": (*EVENTS, *walk("attempt", "g-a-1/1", "SPAWNING", "DONE"))}, {"illegal transitions"}),
    ({"events": EVENTS[1:]}, {"illegal transitions"}),
    ({"events": (*EVENTS, Event(machine="task_run", subject="g-a-1", before="LEASED", after="EXECUTING"))}, {"illegal transitions"}),
    ({"leftovers": {"containers": 1}}, {"leftovers"}),
    ({"overspent": {"leases": 1}}, {"overspend"}),
    ({"open_calls": 1}, {"open model calls"}),
    ({"stale": {"messages": 1}}, {"stale epochs accepted"}),
    ({"audit": CHAIN._replace(broken_at=2, problem="entry 2 does not say what its hash is of")}, {"audit chain broken"}),
    ({"main_is_green": False}, {"main is red"}),
    ({"manual_steps": ("up had to be asked again",)}, {"manual steps"}),
]


@pytest.mark.parametrize(("wrong", "bars"), WRONG, ids=[f"{number}-{min(bars)}" for number, (_, bars) in enumerate(WRONG)])
def test_what_goes_wrong_breaks_its_bar_and_no_other(wrong: dict[str, Any], bars: set[str]) -> None:
    assert broken(**wrong) == bars


def test_every_bar_is_broken_by_something() -> None:
    assert {bar.name for bar in judge(Remains.model_validate(SOUND)).bars} == set().union(*(bars for _, bars in WRONG))


@pytest.mark.parametrize(
    ("found", "bar"),
    [
        ({"failures": ("1 x lost (not counted): The sandbox was lost (unwatched).",)}, "attempts lost"),
        ({"taken": ("airlock-v-1: unwatched",)}, "unwatched or taken for a person's"),
        ({"runs": (run("a"), run("b", state="CANCELLED"))}, "goals not completed"),
    ],
)
def test_where_nothing_is_killed_nothing_may_be_lost(found: dict[str, Any], bar: str) -> None:
    facts = Remains.model_validate({**SOUND, "tasks": SOUND["tasks"], **found})
    assert bar in {each.name for each in judge(facts, kills_nothing=True).bars if not each.holds}
    assert bar not in {each.name for each in judge(facts).bars}  # where something is killed, an attempt may be
    assert judge(Remains.model_validate(SOUND), kills_nothing=True).holds


def test_a_goal_that_ended_otherwise_is_not_lost_and_its_work_may_lie_on_its_branch() -> None:
    runs = (run("a"), run("b", state="ESCALATED", reason="ten attempts were lost"))
    tasks = (*SOUND["tasks"][:3], task("g-b-2", state="ESCALATED"))
    assert broken(runs=runs, tasks=tasks, merges=TASKS[:3], on_main=TASKS[:2], kept=TASKS[2:3]) == set()
    assert broken(runs=runs, tasks=tasks, merges=TASKS[:3], on_main=TASKS[:2]) == {"merges lost"}


def test_merges_stay_on_a_branch_only_where_a_task_was_at_fault() -> None:
    """Half of a goal is merged when it fails: a task that failed by its own fault excuses that, a loss or a cancelled one does not."""

    def with_end(**end: Any) -> set[str]:
        runs = (run("a"), run("b", state="FAILED", reason="its run in Airflow failed"))
        tasks = (*SOUND["tasks"][:3], task("g-b-2", **end))
        return broken(runs=runs, tasks=tasks, merges=TASKS[:3], on_main=TASKS[:2], kept=TASKS[2:3])

    assert with_end(state="FAILED", counted=3) == with_end(state="CANCELLED", counted=1) == set()
    assert with_end(state="CANCELLED") == with_end(state="CANCELLED", lost=2) == {"merged, not landed"}
    # control: nothing of it is merged, so nothing is left
    tasks = (*SOUND["tasks"][:2], task("g-b-1", state="CANCELLED"), task("g-b-2", state="CANCELLED"))
    assert broken(runs=(run("a"), run("b", state="FAILED")), tasks=tasks, merges=TASKS[:2], on_main=TASKS[:2]) == set()


def test_a_goal_that_was_not_confirmed_may_be_there_or_not() -> None:
    asked = (ASKED[0], ASKED[1].model_copy(update={"acknowledged": False}))
    there = judge(Remains.model_validate({**SOUND, "asked": asked}))
    gone = judge(
        Remains.model_validate(
            {**SOUND, "asked": asked, "runs": (run("a"),), "tasks": SOUND["tasks"][:2], "merges": TASKS[:2], "on_main": TASKS[:2]}
        )
    )
    assert (there.goals.recovered, there.goals.lost) == (1, 0)
    assert (gone.goals.recovered, gone.goals.lost) == (0, 0)


def test_the_bound_is_three_in_n() -> None:
    assert (bound(300), bound(2), bound(0)) == (0.01, 1.0, 1.0)
    assert (quantile([], 0.5), quantile([3, 1, 2], 0.5), quantile([1, 2, 3], 0.95)) == (0.0, 2, 3)


def test_the_report_shows_the_counters_the_bounds_and_what_broke(capsys: pytest.CaptureFixture[str]) -> None:
    facts = Remains.model_validate({**SOUND, "on_main": (*TASKS, "g-a-1"), "failures": ("2 x lost (not counted): [killed]",)})
    faults = (
        Fault(at_s=1, kind="kill", target="broker", recovery_s=2.5),
        Fault(at_s=2, kind="kill", target="broker"),
        Fault(at_s=3, kind="stop", target="relay"),
        Fault(at_s=4, kind="point", target="merge.move.after"),
    )
    options = Options(kills=3, goals=2, seed=7, engine="bubblewrap")
    outcome = ChaosReport(options=options, faults=faults, facts=facts, judgement=judge(facts), wall_s=9.0, words=("Read this.",))
    report.show(outcome)
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "N = 3 kills and 1 stops over 2 goals",
        "100.0 % a kill",
        "merged twice",
        "BROKEN",
        "[killed]",
        "Read this.",
        "A BAR IS BROKEN",
    ):
        assert words in shown, words
    assert outcome.public()["judgement"]["merges"]["duplicated"] == 1 and not outcome.public()["ok"]
