"""The plan bundle on a real Airflow: one DAG per goal, each run keeps its plan, a broken plan is alone, nothing is rendered."""

from __future__ import annotations

import time

from include.errors import Unavailable
from include.flow.trigger_run import _require_parsed
from include.plans.models import Plan
from tests.conftest import wait_until
from tests.flow.conftest import Airflow, plan
from tests.kit.quiet import Figure

MEAN = '{{ 7*7 }} {{ conn.x.password }} <b>*x*</b> ")\nimport os; os._exit(3)\n("'


def stored_steps(airflow: Airflow, dag_id: str) -> set[str]:
    answer = airflow.http.get(f"/api/v2/dags/{dag_id}/tasks")
    return {task["task_id"].partition(".")[0] for task in answer.json()["tasks"]} if answer.status_code == 200 else set()


def clear(airflow: Airflow, dag_id: str, run_id: str, **options: object) -> None:
    airflow.http.post(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/clear", json={"dry_run": False, **options}).raise_for_status()


def test_first_step_within_5_s_of_the_stored_plan(airflow: Airflow, figure: Figure) -> None:
    airflow.finish(*warm(airflow))
    began = time.monotonic()
    dag = airflow.goal(plan("a"))
    run = airflow.run(dag)
    created = time.monotonic() - began
    wait_until("the first step runs", lambda: airflow.probes(dag))
    took = time.monotonic() - began
    print(f"\nplan stored to run created {created:.2f} s, to the first step's code {took:.2f} s")
    airflow.finish(dag, run)
    figure("seconds from the stored plan to its first step", took, 5)


def warm(airflow: Airflow) -> tuple[str, str]:
    dag = airflow.goal(plan("a"))
    return dag, airflow.run(dag)


def test_a_run_keeps_its_plan(airflow: Airflow) -> None:
    """Plan v1 has a and b; v2 drops b and adds c. Clearing the old run does v1 again; with run_on_latest_version, v2."""
    dag = airflow.goal(plan("a", "b"))
    old = airflow.run(dag)
    airflow.finish(dag, old)
    airflow.goal(plan("a", "c"), dag_id=dag, revision=2)
    wait_until("Airflow shows the second plan", lambda: "c" in stored_steps(airflow, dag))

    def tasks(run_id: str) -> set[str]:
        rows = airflow.database.execute(
            "SELECT DISTINCT split_part(step, '.', 1) AS key FROM probe WHERE dag_id = %s AND run_id = %s", (dag, run_id)
        )
        return {row["key"] for row in rows} - {"land", "report", "outcome"}

    airflow.database.execute("DELETE FROM probe WHERE dag_id = %s", (dag,))
    clear(airflow, dag, old)
    assert airflow.finish(dag, old) == "success"
    assert tasks(old) == {"a", "b"}
    new = airflow.run(dag)
    assert airflow.finish(dag, new) == "success"
    assert tasks(new) == {"a", "c"}
    airflow.database.execute("DELETE FROM probe WHERE dag_id = %s", (dag,))
    clear(airflow, dag, old, run_on_latest_version=True)
    airflow.finish(dag, old)
    assert tasks(old) >= {"a", "c"} and "b" not in tasks(old)


def test_a_run_is_not_started_under_an_older_plan(airflow: Airflow) -> None:
    dag = airflow.goal(plan("a"))
    wait_until("Airflow shows the first plan", lambda: stored_steps(airflow, dag))
    airflow.goal(plan("a", "c"), dag_id=dag, revision=2)
    newest = airflow.database.execute("SELECT max(seq) AS seq FROM plans").fetchone()["seq"]

    def parsed() -> bool:
        try:
            _require_parsed(dag, newest)
            return True
        except Unavailable:
            return False

    assert not parsed()  # the DAG is known already, by its first plan
    wait_until("Airflow has come to the second plan", parsed)
    assert "c" in stored_steps(airflow, dag)


def test_a_broken_plan_breaks_no_other_goal(airflow: Airflow) -> None:
    broken = airflow.goal('{"summary": "no tasks", "tasks": []}')
    good = airflow.goal(plan("a"))
    run = airflow.run(good)
    assert airflow.finish(good, run) == "success"
    wait_until("the broken plan is an import error", lambda: any(broken in name for name in airflow.errors()))
    assert not any(good in name for name in airflow.errors())


def test_an_archived_goal_leaves(airflow: Airflow) -> None:
    dag = airflow.goal(plan("a"))
    wait_until("the goal is there", lambda: stored_steps(airflow, dag))
    airflow.database.execute("UPDATE goals SET archived_at = now() WHERE dag_id = %s", (dag,))
    wait_until("the DAG is stale", lambda: airflow.http.get(f"/api/v2/dags/{dag}").json().get("is_stale"), 30)


def test_text_is_data_in_a_running_airflow(airflow: Airflow) -> None:
    """The goal's text says it is code and a template; it runs, and what Airflow stored, shows and rendered holds neither result."""
    values = plan("a").tasks[0].model_dump() | {"title": MEAN[:80], "prompt": MEAN}
    dag = airflow.goal(Plan.model_validate({"summary": MEAN, "tasks": [values]}), title=MEAN, text=MEAN)
    run = airflow.run(dag)
    assert airflow.finish(dag, run) == "success"
    shown = airflow.http.get(f"/api/v2/dags/{dag}/details").json()
    assert "49" not in shown["doc_md"].replace("&#49;", "") and "{{" not in shown["doc_md"] and "<b>" not in shown["doc_md"]
    assert shown["dag_display_name"].startswith("{{ 7*7 }}")  # shown as it was written
    for name, step in airflow.steps(dag, run).items():
        assert "49" not in str(step["rendered_fields"]), name


def test_control_a_templated_field_is_rendered(airflow: Airflow) -> None:
    """The same words in a templated field of an operator are rendered by this Airflow."""
    dag_id = "control_that_renders"
    (airflow.dags / f"{dag_id}.py").write_text(
        "from airflow.sdk import DAG\nfrom tests.flow.probe import RenderingStep\n"
        f"with DAG('{dag_id}', schedule=None):\n    RenderingStep(task_id='a', words='{{{{ 7*7 }}}}')\n"
    )
    airflow.trigger(dag_id, "r1")
    airflow.finish(dag_id, "r1")
    assert airflow.probes(dag_id, "rendered 49")
