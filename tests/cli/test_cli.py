"""The command line: every command is documented, every error is one line that says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from include.cli import commands as cli
from include.cli import person, progress, result, submit
from include.database.unit_of_work import transaction
from include.errors import BadInput, NotFound
from include.goals.rules import submission_run
from include.repository import as_person
from include.repository import service as repositories
from include.settings import ROOT, Settings
from include.tasks.models import TaskRunState
from include.views import goals
from include.views.models import GoalView, TaskView
from tests.kit import build

DOCS = (ROOT / "docs" / "cli.md").read_text()


def airlock(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRLOCK_")} | {"AIRLOCK_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "include.cli", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def commands() -> dict[str, object]:
    root = typer.main.get_command(cli.app)
    found = {}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        children = getattr(command, "commands", None)
        found |= {f"{name} {child}": value for child, value in children.items()} if children else {name: command}
    return found


def test_every_command_and_option_is_documented() -> None:
    found = commands()
    assert {"demo", "up", "goal submit", "images build"} <= set(found)
    assert [name for name in found if f"`airlock {name}" not in DOCS] == []
    options = {option for command in found.values() for parameter in command.params for option in parameter.opts if option.startswith("--")}  # type: ignore[attr-defined]
    assert sorted(option for option in options if option not in DOCS) == []


def test_every_field_of_the_json_is_documented() -> None:
    hidden = {"repository_path", "attempt_state"}
    fields = {*GoalView.model_fields, *TaskView.model_fields, "url", "commits"} - hidden
    assert len(fields) > 30 and [field for field in sorted(fields) if f"`{field}`" not in DOCS] == []


def test_the_command_line_loads_neither_airflow_nor_the_models_sdk() -> None:
    code = "import sys, include.cli.commands, include.cli.demo; print(sorted({'airflow', 'anthropic', 'great_expectations'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [("goal", "list"), ("goal", "submit", "x", "--repo", "."), ("repo", "list"), ("goal", "show", "g1")])
def test_without_anything_running_the_remedy_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = airlock(tmp_path, *arguments)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Run `./airlock up` first." in done.stderr


def test_down_and_status_without_anything_running(tmp_path: Path) -> None:
    assert airlock(tmp_path, "down").returncode == 0
    assert "is down" in airlock(tmp_path, "status").stdout


def test_logs_of_an_unknown_process_name_the_known(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "relay.log").write_text("one\ntwo\n")
    assert "two" in airlock(tmp_path, "logs", "relay").stdout
    done = airlock(tmp_path, "logs", "rely")
    assert done.returncode == 2 and "There are: relay." in done.stderr


def test_a_port_that_the_environment_names_and_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from include.local import runtime

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("AIRLOCK_API_PORT", str(taken.getsockname()[1]))
        with pytest.raises(BadInput, match="Set AIRLOCK_API_PORT to a free port"):
            runtime.choose(tmp_path)


GOOD = {"goal": "Do it", "repository": "sample"}


@pytest.mark.parametrize(
    "change, field",
    [
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": "0m"}, "deadline"),
        ({"deadline": "999999999999d"}, "deadline"),
        ({"budget_usd": 0}, "budget-usd"),
        ({"budget_usd": 4e-7}, "budget-usd"),
        ({"landing": "never"}, "landing"),
        ({"goal": ""}, "goal"),
        ({"key": "k" * 201}, "key"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(change: dict[str, object], field: str) -> None:
    submit.request(**GOOD)  # control: the rest is right
    with pytest.raises(BadInput) as refused:
        submit.request(**{**GOOD, **change})
    assert refused.value.field == field


def test_a_broken_plan_names_its_field(tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"summary": "s", "tasks": [{"key": "A", "title": "t", "prompt": "p"}]}')
    with pytest.raises(BadInput, match=r"plan: tasks.0.key"):
        submit.read_plan(plan)
    with pytest.raises(BadInput, match="cannot be read"):
        submit.read_plan(tmp_path / "none.json")


def test_the_same_key_is_the_same_run_of_submit_goal() -> None:
    assert submission_run("a") == submission_run("a") != submission_run("b")
    assert submit.conf(submit.request(**GOOD, key="k"))["wait"] is False


# -- with PostgreSQL ---------------------------------------------------------------------------------------------------------------


def git_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    return folder


def test_a_path_is_registered_once_under_a_free_name(settings: Settings, tmp_path: Path) -> None:
    first, second = git_folder(tmp_path / "a" / "My Repo"), git_folder(tmp_path / "b" / "my-repo")
    assert [submit.register(word).name for word in (str(first), str(first), "my-repo")] == ["my-repo"] * 3
    assert submit.register(str(second)).name == "my-repo-2"
    with transaction("cli") as connection:
        assert [known.listed for known in repositories.every(connection)] == [False, False]


def test_what_is_no_repository_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="neither a registered repository nor a folder"):
        submit.register("smaple")
    with pytest.raises(BadInput, match="not a git repository"):
        submit.register(str(tmp_path))
    inside = git_folder(tmp_path / "r") / "sub"
    inside.mkdir()
    with pytest.raises(BadInput, match="lies inside"):
        submit.register(str(inside))


def test_uncommitted_changes_are_counted(tmp_path: Path) -> None:
    folder = git_folder(tmp_path / "r")
    assert as_person.uncommitted(folder) == 0
    (folder / "new.py").write_text("x = 1\n")
    assert as_person.uncommitted(folder) == 1


PLAN = '{"summary": "s", "tasks": [{"key": "a", "title": "Part A"}, {"key": "b", "title": "Part [b]"}]}'


@pytest.fixture
def a_run(settings: Settings) -> str:
    """A run of a goal with two tasks."""
    with transaction("owner") as connection:
        build.ground(connection)
        build.node(connection)
        goal = build.goal(connection, "goal_sample_00000001", key="k1", goal="Rates")
        build.plan(connection, goal.id, PLAN)
        return build.run(connection, goal, run_id="manual__1").id


def test_a_goal_is_found_by_each_of_its_names(a_run: str) -> None:
    with transaction("viewer") as connection:
        taken = goals.of_key(connection, "k1")
        assert taken is not None
        for word in (a_run, a_run[:6], "goal_sample_00000001", "k1", taken.goal[:8]):
            assert goals.find_run(connection, word) == a_run
        with pytest.raises(NotFound, match="Did you mean 'goal_sample_00000001'"):
            goals.find_run(connection, "goal_smaple_00000001")


def test_progress_tells_each_change_once(a_run: str) -> None:
    told: dict[str, str] = {}
    first = progress.lines(progress.read(a_run), told)
    assert [line.split(" s  ")[1] for line in first] == [f"goal {a_run} SUBMITTED"]
    assert progress.lines(progress.read(a_run), told) == []
    with transaction("owner") as connection:
        build.task(connection, a_run, "a", TaskRunState.EXECUTING)
        connection.execute("UPDATE attempts SET step = 'reads the code'")
    assert [line.split(" s  ")[1] for line in progress.lines(progress.read(a_run), told)] == ["a attempt 1 EXECUTING: reads the code"]


def test_the_table_shows_titles_as_they_are(a_run: str) -> None:
    from rich.console import Console

    console = Console(record=True, width=120, file=open(os.devnull, "w"))
    console.print(progress.table(progress.read(a_run)))
    assert "Part [b]" in console.export_text()


def test_the_report_and_the_json_are_complete(a_run: str, settings: Settings) -> None:
    import json

    row = progress.read(a_run)
    assert "/dags/goal_sample_00000001/runs/manual__1" in "\n".join(result.lines(settings, row))
    printed = json.loads(json.dumps(result.public(settings, row), default=person.plain))
    assert printed["state"] == "SUBMITTED" and [task["key"] for task in printed["tasks"]] == ["a", "b"]
    assert "repository_path" not in printed and "attempt_state" not in printed["tasks"][0]


def test_help_and_version_say_airlock(tmp_path: Path) -> None:
    done = airlock(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"airlock {cli.version()}\n") and cli.version()[0].isdigit()
    for arguments in (("--help",), ("goal", "--help"), ("goal", "submit", "--help")):
        done = airlock(tmp_path, *arguments)
        assert done.returncode == 0 and f"Usage: {' '.join(('airlock', *arguments[:-1]))} " in done.stdout, done.stdout
