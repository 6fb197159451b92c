"""What the facts of a run of chaos are worth: the six counters, and the bars that must hold. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from include.drills.chaos.models import Bar, ClientGoal, Counters, Event, Judgement, Remains
from include.tasks.rules import TRANSITIONS

COMPLETED = "COMPLETED"
EXAMPLES = 5


def judge(facts: Remains, kills_nothing: bool = False) -> Judgement:
    """Count, and hold every bar against what was found.

    Args:
        kills_nothing: no process was killed: then no attempt may fail, and none may end as unwatched or as if a person had ended it.
    """
    goals, merges = goal_counters(facts), merge_counters(facts)
    bars = [
        _bar("goals lost", lost_goals(facts)),
        _bar("goals unexpected", unexpected_goals(facts)),
        _bar("goals duplicated", duplicated_goals(facts)),
        _bar("goals not taken in", [f"{asked.key}: {asked.said}" for asked in facts.asked if not asked.acknowledged]),
        _bar("merges lost", lost_merges(facts)),
        _bar("merges unexpected", unexpected_merges(facts)),
        _bar("merged twice", duplicated_merges(facts)),
        _bar("merged, not landed", stranded_goals(facts)),
        _bar("illegal transitions", illegal_transitions(facts.events)),
        _count("leftovers", facts.leftovers),
        _count("overspend", facts.overspent.model_dump()),
        _count("open model calls", {"open": facts.open_calls}),
        _count("stale epochs accepted", facts.stale.model_dump()),
        _bar("audit chain broken", [facts.audit.problem] if facts.audit.problem else []),
        _bar("main is red", () if facts.main_is_green else ("the sample's tests fail on main",)),
        _bar("manual steps", facts.manual_steps),
    ]
    if kills_nothing:
        bars += [_bar("attempts lost", facts.failures), _bar("unwatched or taken for a person's", facts.taken)]
        bars.append(_bar("goals not completed", [f"{run.run}: {run.state}" for run in facts.runs if run.state != COMPLETED]))
    return Judgement(goals=goals, merges=merges, bars=tuple(bars))


def _bar(name: str, found: Iterable[str]) -> Bar:
    examples = tuple(found)
    return Bar(name=name, found=len(examples), holds=not examples, examples=examples[:EXAMPLES])


def _count(name: str, found: dict[str, int]) -> Bar:
    total = sum(found.values())
    return Bar(name=name, found=total, holds=total == 0, examples=tuple(f"{count} {kind}" for kind, count in found.items() if count))


# -- goals -----------------------------------------------------------------------------------------------------------------


def goal_counters(facts: Remains) -> Counters:
    """Count the goals. Attempted: a client submitted it. Recovered: a submission of it was not answered, and it is there once."""
    there = Counter(run.key for run in facts.runs)
    return Counters(
        attempted=len(facts.asked),
        acknowledged=sum(asked.acknowledged for asked in facts.asked),
        lost=len(lost_goals(facts)),
        unexpected=len(unexpected_goals(facts)),
        duplicated=len(duplicated_goals(facts)),
        recovered=sum(_unanswered(asked) and there[asked.key] == 1 for asked in facts.asked),
    )


def _unanswered(asked: ClientGoal) -> bool:
    return asked.calls > 1 or not asked.acknowledged


def lost_goals(facts: Remains) -> list[str]:
    """Find goals that were confirmed and have no run, or one that did not come to its end."""
    ended = {run.key for run in facts.runs if run.ended}
    return [asked.key for asked in facts.asked if asked.acknowledged and asked.key not in ended]


def unexpected_goals(facts: Remains) -> list[str]:
    """Find goals that nobody asked for."""
    keys = {asked.key for asked in facts.asked}
    return [run.key for run in facts.runs if run.key not in keys]


def duplicated_goals(facts: Remains) -> list[str]:
    """Find goals with more than one run."""
    return [key for key, count in Counter(run.key for run in facts.runs).items() if count > 1]


# -- merges ----------------------------------------------------------------------------------------------------------------


def merge_counters(facts: Remains) -> Counters:
    """Count the merges. Attempted: task runs. Acknowledged: COMPLETED ones. Recovered: merged although an attempt was lost."""
    merged = set(facts.on_main)
    return Counters(
        attempted=len(facts.tasks),
        acknowledged=sum(task.state == COMPLETED for task in facts.tasks),
        lost=len(lost_merges(facts)),
        unexpected=len(unexpected_merges(facts)),
        duplicated=len(duplicated_merges(facts)),
        recovered=sum(task.id in merged and task.lost > 0 for task in facts.tasks),
    )


def lost_merges(facts: Remains) -> list[str]:
    """Find merges that are acknowledged and not where they should be, and tasks of a completed goal that are not there at all."""
    main, landed = set(facts.on_main), _landed(facts)
    anywhere = main | set(facts.kept)
    gone = [task.id for task in facts.tasks if task.state == COMPLETED and task.id not in (main if task.run in landed else anywhere)]
    rowless = [task.id for task in facts.tasks if task.state == COMPLETED and task.id not in set(facts.merges)]
    return sorted({*gone, *rowless, *_missing_tasks(facts, landed)})


def _missing_tasks(facts: Remains, landed: set[str]) -> list[str]:
    wanted = {asked.key: asked.tasks for asked in facts.asked}
    merged = Counter(task.run for task in facts.tasks if task.state == COMPLETED)
    return [f"{run.run}: {merged[run.run]} of {wanted[run.key]} tasks" for run in facts.runs
            if run.run in landed and run.key in wanted and merged[run.run] != wanted[run.key]]  # fmt: skip


def _landed(facts: Remains) -> set[str]:
    return {run.run for run in facts.runs if run.state == COMPLETED}


def unexpected_merges(facts: Remains) -> list[str]:
    """Find what is on main without a row that says so, or of a task run that nobody knows."""
    known = {task.id for task in facts.tasks if task.state == COMPLETED} & set(facts.merges)
    return sorted(set(facts.on_main) - known)


def duplicated_merges(facts: Remains) -> list[str]:
    """Find task runs whose change is on main, or in merges, more than once."""
    twice = [name for name, count in Counter(facts.on_main).items() if count > 1]
    return sorted({*twice, *(name for name, count in Counter(facts.merges).items() if count > 1)})


def stranded_goals(facts: Remains) -> list[str]:
    """Find goals that ended without landing what had merged, although no task of theirs failed by its own fault."""
    main = set(facts.on_main)
    at_fault = {task.run for task in facts.tasks if task.counted or task.state in ("FAILED", "ESCALATED")}
    left = Counter(task.run for task in facts.tasks if task.state == COMPLETED and task.id not in main)
    return [f"{run.run} ended {run.state} with {left[run.run]} merges on its branch: {run.reason[:200]}" for run in facts.runs
            if run.ended and run.state != COMPLETED and left[run.run] and run.run not in at_fault]  # fmt: skip


# -- states -----------------------------------------------------------------------------------------------------------------


def illegal_transitions(events: Iterable[Event]) -> list[str]:
    """Walk each subject's changes of state: every step must be allowed and start where the one before ended."""
    allowed, now, found = set(TRANSITIONS), dict[tuple[str, str], str](), []
    for event in events:
        subject = (event.machine, event.subject)
        before = now.get(subject, "")
        if event.before != before or (event.machine, before, event.after) not in allowed:
            found.append(f"{event.machine} {event.subject}: {event.before or 'nothing'} -> {event.after}, after {before or 'nothing'}")
        now[subject] = event.after
    return found


# -- for the report ------------------------------------------------------------------------------------------------------------


def bound(trials: int) -> float:
    """Compute the 95 % upper bound of the rate of failures after none in so many trials: three in N."""
    return min(1.0, 3 / trials) if trials else 1.0


def quantile(values: Iterable[float], part: float) -> float:
    """Find the value below which this part of the values lies (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)] if ordered else 0.0
