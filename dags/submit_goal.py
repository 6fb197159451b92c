"""submit_goal: a goal in plain language becomes a goal run. The form, REST and the command line all come through here."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from include.flow.steps.intake import IntakeStep
from include.flow.steps.launch import LaunchStep
from include.flow.steps.plan import PlanStep
from include.flow.steps.wait import WaitStep
from include.goals.form import fields

_DOC = """### Submit a goal

Press **Trigger**, say what you want and in which repository. Then:

1. **Take in** checks the form and runs the base branch's own tests once.
2. **Plan** asks the agent's model for a plan, and checks it.
3. **Launch** starts the goal's own DAG. **Its log ends with the address**; the same address is the button *Goal* on its Details tab.
4. **Wait** ends with the goal, if you asked for that.

A red step says in the last line of its log which field to mend, and how.
"""

MOST = 1_000
"""Submissions under way at once. One that waits for its goal counts, though it holds no worker slot: with Airflow's 16 it stops others."""

with DAG(
    "submit_goal",
    dag_display_name="Submit a goal",
    description="Give Airlock a goal and a repository; it plans, works, verifies and merges.",
    doc_md=_DOC,
    schedule=None,
    catchup=False,
    is_paused_upon_creation=False,
    render_template_as_native_obj=False,
    max_active_runs=MOST,
    tags=["airlock"],
    default_args={"owner": "airlock"},
    params={name: Param(**field) for name, field in fields().items()},
) as dag:
    (
        IntakeStep(task_id="intake", task_display_name="Take in")
        >> PlanStep(task_id="plan", task_display_name="Plan")
        >> LaunchStep(task_id="launch", task_display_name="Launch")
        >> WaitStep(task_id="wait", task_display_name="Wait")
    )
