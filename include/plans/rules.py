"""The plan check: pure. A plan that fails it is never stored."""

from __future__ import annotations

from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from include.plans.models import Plan, Task

RESERVED = frozenset({"plan", "answer", "land", "report", "outcome"})
"""Keys that would be mistaken for a model call's purpose or a step of the whole goal."""


class Limits(NamedTuple):
    """What a plan may name, cost and take."""

    workers: Collection[str]  # names of the known worker definitions
    capabilities: Collection[str]  # the agent's
    budget_usd: float  # the goal's
    deadline_s: int  # the goal's, in seconds
    max_tasks: int
    max_width: int  # most tasks that may run side by side


def check(plan: Plan, limits: Limits) -> list[str]:
    """Find everything that is wrong with a plan.

    Returns:
        One sentence a finding; empty: the plan may be stored.
    """
    keys = [task.key for task in plan.tasks]
    findings = [f"the key {key!r} is used twice" for key in sorted({key for key in keys if keys.count(key) > 1})]
    findings += [f"the key {key!r} is taken: model calls for planning and questions have it" for key in sorted(RESERVED & set(keys))]
    if len(keys) > limits.max_tasks:
        findings.append(f"{len(keys)} tasks are more than the {limits.max_tasks} that a plan may have")
    findings += [finding for task in plan.tasks for finding in _of_task(task, keys, limits)]
    return findings or _shape(plan, limits.max_width)


def _of_task(task: Task, keys: list[str], limits: Limits) -> list[str]:
    name, lease = f"task {task.key!r}", task.lease
    findings = [f"{name} depends on {other!r}, which is not in the plan" for other in task.depends_on if other not in keys]
    if task.worker not in limits.workers:
        findings.append(f"{name} names the unknown worker {task.worker!r} (known: {', '.join(sorted(limits.workers))})")
    findings += [f"{name} asks for {one!r}, which the agent may not grant" for one in task.capabilities if one not in limits.capabilities]
    if lease.max_usd > limits.budget_usd:
        findings.append(f"{name} may cost ${lease.max_usd:g}, more than the goal's budget of ${limits.budget_usd:g}")
    if lease.max_minutes * 60 > limits.deadline_s:
        minutes = limits.deadline_s // 60
        findings.append(f"{name} may take {lease.max_minutes} minutes, longer than the goal's deadline of {minutes} minutes")
    return findings


def _shape(plan: Plan, max_width: int) -> list[str]:
    order = TopologicalSorter({task.key: set(task.depends_on) for task in plan.tasks})
    try:
        order.prepare()
    except CycleError as error:
        return [f"the tasks wait for each other in a circle: {' -> '.join(error.args[1])}"]
    while order.is_active():
        ready = order.get_ready()
        if len(ready) > max_width:
            return [f"{len(ready)} tasks side by side are more than the {max_width} that a plan may have"]
        order.done(*ready)
    return []
