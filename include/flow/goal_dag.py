"""From a stored plan to its Airflow DAG: one TaskGroup for each task of the plan, then land, report and outcome.

All text of goal and plan is data: it reaches only display names and ``doc_md``, cleaned and escaped; operators get ids. Airflow renders
neither.
"""

from __future__ import annotations

import importlib
import json
import re
from itertools import pairwise
from typing import Any

from airflow.sdk import DAG, TaskGroup
from airflow.sdk.bases.operator import BaseOperator

from include.plans.models import Plan, Task
from include.tasks.models import STEPS

Steps = dict[str, type[BaseOperator]]
ENDS = ("land", "report", "outcome")
_TITLE = 60  # characters that Airflow's lists show
_MARKUP = re.compile(r"[^\w\s,;:'\"/=?@%^]|_")


def load_steps() -> Steps:
    """The operator class of each step: ``include.flow.steps.admit.AdmitStep`` and so on."""
    return {name: getattr(importlib.import_module(f"include.flow.steps.{name}"), f"{name.capitalize()}Step") for name in (*STEPS, *ENDS)}


def build(document: str, steps: Steps | None = None) -> DAG:
    """Make the DAG of one goal.

    Args:
        document: JSON of ``{"goal": {dag_id, title, text, repository, base_branch, agent, …}, "revision": int, "plan": str}``, where
            ``plan`` is the JSON of ``include.plans.models.Plan``.
        steps: operator classes by step name; default ``load_steps()``.

    Raises:
        pydantic.ValidationError: the plan is not one.
        KeyError: a task depends on one that is not in the plan.
    """
    data = json.loads(document)
    goal, plan = data["goal"], Plan.model_validate_json(data["plan"])
    classes = steps or load_steps()
    with DAG(
        goal["dag_id"],
        dag_display_name=_name(f"{goal['title']} · {goal['repository']}", goal["dag_id"]),
        doc_md=describe(goal, data["revision"], plan),
        tags=["goal", f"agent:{goal['agent']}", f"repository:{goal['repository']}"],
        schedule=None,
        catchup=False,
        is_paused_upon_creation=False,
    ) as dag:
        groups = {task.key: _group(task, classes) for task in plan.tasks}
        for task in plan.tasks:
            for other in task.depends_on:
                groups[other]["merge"] >> groups[task.key]["admit"]
        _end([group["merge"] for group in groups.values()], classes)
    return dag


def _group(task: Task, classes: Steps) -> dict[str, BaseOperator]:
    title = _name(task.title, task.key)
    with TaskGroup(task.key, group_display_name=title):
        made = {name: classes[name](task_id=name, task_display_name=f"{title} · {name}", task_key=task.key) for name in STEPS}
    for before, after in pairwise(STEPS):
        made[before] >> made[after]
    return made


def _end(merges: list[BaseOperator], classes: Steps) -> None:
    """Every merge before land, all of them before the two teardowns, which run whatever happened. The last one's colour is the run's."""
    land, report, outcome = (classes[name](task_id=name, task_display_name=name) for name in ENDS)
    merges >> land
    [*merges, land] >> report
    report.as_teardown()
    report >> outcome
    outcome.as_teardown(on_failure_fail_dagrun=True)


def describe(goal: dict[str, Any], revision: int, plan: Plan) -> str:
    """The DAG's documentation in markdown, with every text of goal and plan made inert.

    It ends with a line break: a text that ends with ``.md`` Airflow would take for a file to open.
    """
    lines = [
        f"### {_inert(goal['title'])}",
        *_quote(goal["text"]),
        f"Repository {_inert(goal['repository'])}, branch {_inert(goal['base_branch'])}.",
        "",
    ]
    lines += [f"### Plan, revision {int(revision)}", *_quote(plan.summary)]
    for task in plan.tasks:
        after = f" (after {', '.join(_inert(key) for key in task.depends_on)})" if task.depends_on else ""
        lines += [f"* **{_inert(task.key)}**: {_inert(task.title)}{after}"]
    return "\n".join([*lines, ""])


def _quote(text: str) -> list[str]:
    return [*(f"> {_inert(line)}  " for line in text.splitlines() or [""]), ""]


def _inert(text: str) -> str:
    """Escape for markdown, HTML and Jinja: whatever is not plainly text becomes a numeric entity."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", _clean(text))


def _name(text: str, default: str) -> str:
    cleaned = _clean(text)
    return (cleaned if len(cleaned) <= _TITLE else f"{cleaned[: _TITLE - 1]}…") or default


def _clean(text: str) -> str:
    """One line without characters that cannot be seen or stored (controls, NUL, lone surrogates, changes of direction)."""
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
