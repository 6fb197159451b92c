"""The plan check: pure. A plan that fails it is never stored."""

from __future__ import annotations

from collections.abc import Collection
from graphlib import CycleError, TopologicalSorter

from include.plans.models import Plan

RESERVED = frozenset({"plan", "answer", "land", "report", "outcome"})
"""Keys that would be mistaken for a model call's purpose or a step of the whole goal."""


def check(
    plan: Plan, workers: Collection[str], capabilities: Collection[str], budget_usd: float, deadline_s: int, max_tasks: int, max_width: int
) -> list[str]:
    """Everything that is wrong with a plan.

    Args:
        workers: names of the known worker definitions.
        capabilities: the agent's.
        budget_usd: the goal's.
        deadline_s: the goal's, in seconds.
        max_tasks: most tasks in a plan.
        max_width: most tasks that may run side by side.

    Returns:
        One sentence a finding; empty: the plan may be stored.
    """
    keys = [task.key for task in plan.tasks]
    findings = [f"the key {key!r} is used twice" for key in sorted({key for key in keys if keys.count(key) > 1})]
    findings += [f"the key {key!r} is taken: model calls for planning and questions have it" for key in sorted(RESERVED & set(keys))]
    if len(keys) > max_tasks:
        findings.append(f"{len(keys)} tasks are more than the {max_tasks} that a plan may have")
    for task in plan.tasks:
        name = f"task {task.key!r}"
        findings += [f"{name} depends on {other!r}, which is not in the plan" for other in task.depends_on if other not in keys]
        if task.worker not in workers:
            findings.append(f"{name} names the unknown worker {task.worker!r} (known: {', '.join(sorted(workers))})")
        findings += [f"{name} asks for {one!r}, which the agent may not grant" for one in task.capabilities if one not in capabilities]
        if task.lease.max_usd > budget_usd:
            findings.append(f"{name} may cost ${task.lease.max_usd:g}, more than the goal's budget of ${budget_usd:g}")
        if task.lease.max_minutes * 60 > deadline_s:
            findings.append(
                f"{name} may take {task.lease.max_minutes} minutes, longer than the goal's deadline of {deadline_s // 60} minutes"
            )
    if not findings:
        findings += _shape(plan, max_width)
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
