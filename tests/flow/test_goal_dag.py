"""From plan to DAG without a running Airflow: shape, names, and text that stays text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest

from include.flow.bundle import PlannedGoal, stub
from include.flow.goal_dag import build, describe
from include.goals.models import GoalCard
from include.plans.models import Plan, Task
from tests.conftest import ROOT
from tests.flow import probe

GOAL = {
    "dag_id": "goal_sample_1",
    "title": "Add a parser",
    "text": "Please.",
    "repository": "sample",
    "base_branch": "main",
    "agent": "jarvis",
}


def document(plan: Plan, **goal: str) -> str:
    return json.dumps({"goal": {**GOAL, **goal}, "revision": 1, "plan": plan.model_dump_json()})


def tasks(*keys: str, **depends: tuple[str, ...]) -> Plan:
    return Plan(summary="s", tasks=tuple(Task(key=key, title=f"Title {key}", prompt="p", depends_on=depends.get(key, ())) for key in keys))


def test_shape() -> None:
    dag = build(document(tasks("a", "b", b=("a",))), probe.STEPS)
    assert set(dag.task_dict) == {f"{key}.{step}" for key in "ab" for step in ("admit", "start", "lease", "verify", "merge")} | {
        "land",
        "report",
        "outcome",
    }
    assert dag.task_dict["b.admit"].upstream_task_ids == {"a.merge"}
    assert dag.task_dict["land"].upstream_task_ids == {"a.merge", "b.merge"}
    assert dag.task_dict["report"].upstream_task_ids == {"a.merge", "b.merge", "land"}
    assert dag.task_dict["outcome"].upstream_task_ids == {"report"}
    assert [dag.task_dict[name].is_teardown for name in ("land", "report", "outcome")] == [False, True, True]
    assert [dag.task_dict[name].on_failure_fail_dagrun for name in ("report", "outcome")] == [False, True]
    assert dag.dagrun_timeout is None  # it would skip the teardowns


def test_names_that_a_person_reads() -> None:
    dag = build(document(tasks("a"), title="x" * 100), probe.STEPS)
    assert len(dag.dag_display_name) == 60 and dag.dag_display_name.endswith("x… · sample")
    assert dag.task_group.children["a"].group_display_name == "Title a"
    assert dag.task_dict["a.verify"].task_display_name == "a · verify"
    assert dag.tags == {"goal", "agent:jarvis", "repository:sample"}


@pytest.mark.parametrize("broken", ["{", "[]", '{"summary": "s", "tasks": []}', tasks("a", a=("nobody",)).model_dump_json()])
def test_a_broken_plan_is_an_error_of_its_own_file(broken: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        build(json.dumps({"goal": GOAL, "revision": 1, "plan": broken}), probe.STEPS)


MEAN = ["{{ 7*7 }}", "{{ conn.x.password }}", "{% for x in () %}", '")\nimport os; os._exit(3)\n("', "\\", '"""', "'''", "/etc/passwd.md"]
UNSEEN = ["\x00", "\ud800", "\u202e", "\x1b[2J"]


def naughty(corpora: Path) -> list[str]:
    return [text for text in json.loads((corpora / "blns" / "blns.json").read_text()) if text.strip()] + MEAN + UNSEEN


def loaded(source: str) -> Any:
    """Run a stub as Airflow does."""
    scope: dict[str, Any] = {}
    exec(compile(source, "stub", "exec"), scope)
    return scope["dag"]


def row(text: str) -> tuple[PlannedGoal, Plan]:
    """A goal and plan that are this text wherever a text may be."""
    task = Task.model_construct(**{**tasks("a").tasks[0].model_dump(), "title": text[:80], "prompt": text})
    plan = Plan.model_construct(summary=text, tasks=(task,))
    values = {**GOAL, "title": text, "text": text, "document": json.dumps(plan.model_dump()), "revision": 1}
    return PlannedGoal.model_construct(**values), plan  # unchecked: some of these texts could not even be stored


def inert(shown: str, text: str) -> None:
    """Nothing in it is a template, markdown or HTML of its own, or cannot be seen."""
    assert jinja2.Environment().from_string(shown).render() == shown.removesuffix("\n"), text
    assert not set("<{[`*_|~") & set(shown.replace("* **a**: ", "")), text
    assert all(line.isprintable() for line in shown.split("\n")), text


def test_text_is_data(corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every naughty string as title, text, summary and task's title: the stub holds it as one literal, and what is shown is inert."""
    monkeypatch.setattr(probe, "build", lambda document: document)
    for text in naughty(corpora):
        values, plan = row(text)
        source = stub(values, "tests.flow.probe")
        assert source.isascii() and source.count("\n") == 4
        document = json.loads(loaded(source))
        assert (document["goal"]["text"], json.loads(document["plan"])["summary"]) == (text, text)
        inert(describe(values, 1, plan), text)


@pytest.mark.parametrize("text", MEAN)
def test_text_reaches_no_templated_field(text: str) -> None:
    dag = loaded(stub(row(text)[0], "tests.flow.probe"))
    inert(dag.doc_md, text)
    assert all(name.isprintable() for name in (dag.dag_display_name, *(step.task_display_name for step in dag.tasks)))
    for step in dag.tasks:
        assert not [field for field in step.template_fields if text in str(getattr(step, field))]


def test_control_a_template_does_render() -> None:
    assert jinja2.Environment().from_string("{{ 7*7 }}").render() == "49"
    plain = Plan(summary="{{ 7*7 }}", tasks=tasks("a").tasks)
    assert "{{" not in describe(GoalCard(**GOAL | {"text": "{{ 7*7 }}"}), 1, plain)


def test_a_file_name_is_not_opened(tmp_path: Path) -> None:
    """Airflow opens a doc_md that ends with .md as a file."""
    secret = tmp_path / "secret.md"
    secret.write_text("SECRET")
    dag = build(document(tasks("a"), title="t", text=str(secret)), probe.STEPS)
    assert "SECRET" not in dag.doc_md
    from airflow.sdk import DAG

    assert DAG("control", doc_md=str(secret)).doc_md == "SECRET"


def test_dag_files_import_neither_great_expectations_nor_anthropic() -> None:
    files = [str(path) for path in (ROOT / "dags").glob("*.py")]
    program = (
        "import runpy, sys\nfrom include.flow import goal_dag\ntry:\n    goal_dag.load_steps()\nexcept ImportError as e:\n    print('steps:', e)\n"
        f"for file in {files!r}: runpy.run_path(file)\n"
        "print('loaded', [name for name in ('great_expectations', 'anthropic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "loaded []" in done.stdout, done.stdout + done.stderr[-2000:]
    assert "steps:" not in done.stdout, done.stdout
