"""From a stored plan to its Airflow DAG: one TaskGroup for each task of the plan, then land, report and outcome.

All text of goal and plan is data: it reaches only display names and ``doc_md``, cleaned and escaped; operators get ids. Airflow renders
neither.
"""

from __future__ import annotations

import importlib
import re
from itertools import pairwise

from airflow.sdk import DAG, TaskGroup
from airflow.sdk.bases.operator import BaseOperator

from include import inert
from include.frozen import Frozen
from include.goals.models import GoalCard
from include.plans.models import Plan, Task
from include.tasks.models import STEPS

Steps = dict[str, type[BaseOperator]]
ENDS = ("land", "report", "outcome")
_TITLE = 60  # characters that Airflow's lists show
_REPOSITORY = 24
_WORD = 12  # a name is cut between words, unless a word is longer than this
_STEPS = (
    "A task passes admit (policy, a lease), start (its sandbox), lease (the work, with the worker's milestones in its log), "
    "verify (the tests in a fresh sandbox, then the gate) and merge. A step whose first try is red was sent back and done again. "
    "At the end, land moves the base branch, report sums up, and outcome is green only if the goal landed."
)
_MARKUP = re.compile(r"[^\w\s,;:'\"/=?@%^]|_")


class Stub(Frozen):
    """What a stub of the plan bundle holds of a goal: the goal, and the JSON of one revision of its plan."""

    goal: GoalCard
    revision: int
    plan: str


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
    stub = Stub.model_validate_json(document)
    goal, plan = stub.goal, Plan.model_validate_json(stub.plan)
    classes = steps or load_steps()
    with DAG(
        goal.dag_id,
        dag_display_name=_goal_name(goal),
        doc_md=describe(goal, stub.revision, plan),
        default_args={"owner": _name(goal.agent, "airlock")},
        tags=["goal", f"agent:{goal.agent}", f"repository:{goal.repository}"],
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
    """The group shows the task's title. Its steps show the short key: lists have no group, and the grid cuts long names at their end."""
    with TaskGroup(task.key, group_display_name=_name(task.title, task.key)):
        made = {name: classes[name](task_id=name, task_display_name=f"{task.key} · {name}", task_key=task.key) for name in STEPS}
    for before, after in pairwise(STEPS):
        made[before] >> made[after]
    return made


def _end(merges: list[BaseOperator], classes: Steps) -> None:
    """Every merge before land, all of them before the two teardowns, which run whatever happened. The last one's colour is the run's."""
    land, report, outcome = (classes[name](task_id=name, task_display_name=name.capitalize()) for name in ENDS)
    merges >> land
    [*merges, land] >> report
    report.as_teardown()
    report >> outcome
    outcome.as_teardown(on_failure_fail_dagrun=True)


def describe(goal: GoalCard, revision: int, plan: Plan) -> str:
    """The DAG's documentation in markdown, with every text of goal and plan made inert.

    It ends with a line break: a text that ends with ``.md`` Airflow would take for a file to open.
    """
    lines = ["### Goal", *_quote(goal.text), _terms(goal), "", f"### Plan, revision {revision}", *_quote(plan.summary)]
    lines += [f"* **{_inert(task.key)}**: {_inert(task.title)}{_details(task)}" for task in plan.tasks]
    return "\n".join([*lines, "", "### Steps", _STEPS, ""])


def _terms(goal: GoalCard) -> str:
    said = [f"Repository {_inert(goal.repository)}, branch {_inert(goal.base_branch)}, agent {_inert(goal.agent)}."]
    if goal.budget_micro is not None and goal.deadline_s is not None:
        said += [f"At most ${goal.budget_micro / 1e6:.2f} and {goal.deadline_s / 60:.0f} minutes."]
        said += ["Each task lands when it is done." if goal.landing == "per_task" else "The finished goal lands as one merge."]
    return " ".join(said)


def _details(task: Task) -> str:
    said = [f"after {', '.join(task.depends_on)}"] if task.depends_on else []
    said += [f"touches {', '.join(task.touches)}"] if task.touches else []
    return f" ({_inert('; '.join(said))})" if said else ""


def _quote(text: str) -> list[str]:
    return [*(f"> {_inert(line)}  " for line in text.splitlines() or [""]), ""]


def _inert(text: str) -> str:
    """Escape for markdown, HTML and Jinja: whatever is not plainly text becomes a numeric entity."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", inert.words(text))


def _goal_name(goal: GoalCard) -> str:
    """The title, cut so that the repository behind it can be read."""
    where = f" · {_name(goal.repository, 'repository', _REPOSITORY)}"
    return _name(goal.title, goal.dag_id, _TITLE - len(where)) + where


def _name(text: str, default: str, most: int = _TITLE) -> str:
    cleaned = inert.words(text) or default
    if len(cleaned) <= most:
        return cleaned
    cut = cleaned[: most - 1]
    head, _, last = cut.rpartition(" ")
    return f"{(head if head and len(last) <= _WORD else cut).rstrip(' .,;:…')}…"
