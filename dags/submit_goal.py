"""submit_goal: a goal in plain language becomes a goal run. The form, REST and the command line all come through here."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from include.flow.steps.intake import IntakeStep
from include.flow.steps.launch import LaunchStep
from include.flow.steps.plan import PlanStep
from include.flow.steps.wait import WaitStep

# Fields without a section stand in the one that the form opens with.
_BOUNDS, _MORE = "Budget, deadline and landing", "For bots and planners"
_DOC = """### Submit a goal

Press **Trigger**, say what you want and in which repository. Then:

1. **Take in** checks the form and runs the base branch's own tests once.
2. **Plan** asks the agent's model for a plan, and checks it.
3. **Launch** starts the goal's own DAG. **Its log ends with the address**; the same address is the button *Goal* on its Details tab.
4. **Wait** ends with the goal, if you asked for that.

A red step says in the last line of its log which field to mend, and how.
"""

with DAG(
    "submit_goal",
    dag_display_name="Submit a goal",
    description="Give Airlock a goal and a repository; it plans, works, verifies and merges.",
    doc_md=_DOC,
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    render_template_as_native_obj=False,
    max_active_runs=16,
    tags=["airlock"],
    default_args={"owner": "airlock"},
    params={
        "goal": Param(type="string", minLength=1, maxLength=20000, format="multiline", title="Goal",
                      description="What you want, in plain language. The first line becomes its title."),
        "repository": Param(type="string", minLength=1, title="Repository",
                            description="Name of a registered repository: ./airlock repo list shows them, repo add adds one."),
        "base": Param("main", type="string", minLength=1, title="Base branch",
                      description="The work starts from this branch and lands on it. Uncommitted changes are not part of the goal."),
        "agent": Param("jarvis", type="string", minLength=1, title="Agent", description="Who plans the work and pays for it."),
        "budget_usd": Param(5.0, type="number", exclusiveMinimum=0, maximum=10000, title="Budget (USD)", section=_BOUNDS,
                            description="Most that this goal may cost, over all its tasks and attempts."),
        "deadline": Param("2h", type="string", pattern=r"^\d+\s*[smhd]$", title="Deadline", section=_BOUNDS,
                          description="Time for the whole goal: a number and s, m, h or d, for example 90m or 2h."),
        "landing": Param("per_goal", type="string", enum=["per_goal", "per_task"], title="Landing", section=_BOUNDS,
                         values_display={"per_goal": "The finished goal, as one merge", "per_task": "Each task, as soon as it is done"},
                         description="What reaches the base branch, and when."),
        "wait": Param(False, type="boolean", title="Wait for the end", section=_MORE,
                      description="This run ends when the goal ends, and is red unless the goal landed."),
        "key": Param(None, type=["null", "string"], maxLength=200, title="Idempotency key", section=_MORE,
                     description="The same key with the same form is the same goal; with another form it is refused. Empty: a new goal."),
        "plan": Param(None, type=["null", "object"], title="Plan", section=_MORE,
                      description="A plan made by hand (JSON, docs/plan.schema.json). Leave it as it is, and the agent's model plans."),
    },
):  # fmt: skip
    (
        IntakeStep(task_id="intake", task_display_name="Take in")
        >> PlanStep(task_id="plan", task_display_name="Plan")
        >> LaunchStep(task_id="launch", task_display_name="Launch")
        >> WaitStep(task_id="wait", task_display_name="Wait")
    )
