"""submit_goal: a goal in plain language becomes a goal run. The form, REST and the command line all come through here."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from include.flow.steps.intake import IntakeStep
from include.flow.steps.launch import LaunchStep
from include.flow.steps.plan import PlanStep
from include.flow.steps.wait import WaitStep

_WHAT, _BOUNDS, _MORE = "What", "Bounds", "More"

with DAG(
    "submit_goal",
    dag_display_name="Submit a goal",
    description="Give Airlock a goal and a repository; it plans, works, verifies and merges.",
    doc_md=__doc__,
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    render_template_as_native_obj=False,
    max_active_runs=16,
    tags=["airlock"],
    params={
        "goal": Param(type="string", minLength=1, maxLength=20000, format="multiline", title="Goal", section=_WHAT,
                      description="What you want, in plain language."),
        "repository": Param(type="string", minLength=1, title="Repository", section=_WHAT,
                            description="Name of a registered repository (`./airlock repo list`)."),
        "base": Param("main", type="string", minLength=1, title="Base branch", section=_WHAT,
                      description="The work starts from this branch and lands on it. Uncommitted changes are not part of the goal."),
        "agent": Param("jarvis", type="string", title="Agent", section=_WHAT, description="Plans and pays: jarvis, nova or atlas."),
        "budget_usd": Param(5.0, type="number", exclusiveMinimum=0, maximum=10000, title="Budget (USD)", section=_BOUNDS,
                            description="Most that this goal may cost, over all its tasks and attempts."),
        "deadline": Param("2h", type="string", pattern=r"^\d+\s*[smhd]$", title="Deadline", section=_BOUNDS,
                          description="Time for the whole goal, for example 90m or 2h."),
        "landing": Param("per_goal", type="string", enum=["per_goal", "per_task"], title="Landing", section=_BOUNDS,
                         description="Land the finished goal as one merge, or each task as it is done."),
        "key": Param(None, type=["null", "string"], maxLength=200, title="Idempotency key", section=_MORE,
                     description="The same key and body is the same goal. Empty: this run's id."),
        "plan": Param(None, type=["null", "object"], title="Plan", section=_MORE,
                      description="A plan made by hand (docs/plan.schema.json). Empty: the agent's model plans."),
        "wait": Param(False, type="boolean", title="Wait", section=_MORE, description="This run ends when the goal ends."),
    },
):  # fmt: skip
    (
        IntakeStep(task_id="intake", task_display_name="Take in")
        >> PlanStep(task_id="plan", task_display_name="Plan")
        >> LaunchStep(task_id="launch", task_display_name="Launch")
        >> WaitStep(task_id="wait", task_display_name="Wait")
    )
