"""``./airlock goal``: submit, list, show, wait, cancel, extend; each with --json."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from include.agents import service as agents
from include.airflow_api.client import Airflow
from include.cli import progress, result
from include.cli.options import of_model
from include.cli.person import look, operator, print_json, say, tell, transact
from include.errors import BadInput
from include.goals.models import GoalRequest
from include.governance import commands
from include.local import control
from include.settings import Settings, load
from include.tasks.models import GoalRunState
from include.views import goals
from include.views.models import GoalView

app = typer.Typer(no_args_is_help=True, help="Goals: what you want, against one repository.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON (docs/cli.md).")]
Goal = Annotated[str, typer.Argument(help="A run, goal, DAG or key, or the beginning of one.")]
_GONE_S = 6.0
"""Seconds that a cancel waits for the sandboxes' end."""


def _settings() -> Settings:
    return control.require_up(load().home)


def exit_code(goal: GoalView) -> int:
    """Make the exit code of how a goal ended. 0: completed. 1: it ended otherwise."""
    return 0 if goal.state is GoalRunState.COMPLETED else 1


@app.command()
@of_model(
    GoalRequest,
    goal=Annotated[str, typer.Argument(metavar="TEXT", help=GoalRequest.model_fields["goal"].description)],
    repository=Annotated[str, typer.Option("--repo", help="Path of a git repository, or a registered name.")],
    key=(Annotated[str, typer.Option(help="Idempotency key: the same key and body is the same goal; default: a new one.")], ""),
    plan=Annotated[Path | None, typer.Option(help="A plan of your own (JSON, docs/plan.schema.json).")],
)
def submit(
    asked: dict[str, Any],
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it is over.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a goal."""
    from include.cli import submit as intake

    settings = _settings()
    request = intake.request(**asked)
    _require_broker(settings, request.agent)
    known = intake.register(request.repository)
    _warn_of_uncommitted(Path(known.path))
    submitted = intake.submit(settings, request.model_copy(update={"repository": known.name}))
    if wait:
        _finish(settings, progress.watch(submitted.run), as_json)
    goal = progress.read(submitted.run)
    if as_json:
        print_json(result.public(settings, goal))
    else:
        tell(f"{submitted.run}  {result.address(settings, goal)}", f"Watch it: ./airlock goal wait {submitted.run}")


def _warn_of_uncommitted(path: Path) -> None:
    from include.repository import as_person

    if count := as_person.uncommitted(path):
        say(f"Note: {count} changed files in {path} are not committed, and so not part of the goal.")


def _require_broker(settings: Settings, agent: str) -> None:
    known = look(agents.names)
    if agent not in known:
        raise BadInput("agent", f"{agent!r} is not an agent", f"Known: {', '.join(known)}.")
    if f"broker-{agent}" not in control.state(settings.home).processes:
        variable = f"ANTHROPIC_API_KEY_{agent.upper().replace('-', '_')}"
        raise BadInput(
            "agent", f"no broker runs for {agent!r}: it has no model key", f"Set {variable}, then `./airlock down` and `./airlock up`."
        )


def _finish(settings: Settings, goal: GoalView, as_json: bool) -> NoReturn:
    if as_json:
        print_json(result.public(settings, goal))
    else:
        tell(*result.lines(settings, goal))
    raise typer.Exit(exit_code(goal))


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """Show the goals, newest first."""
    _settings()
    found = look(goals.newest)
    if as_json:
        print_json(found)
        return
    tell(*map(result.row, found))


@app.command()
def show(goal: Goal, as_json: Json = False) -> None:
    """Show one goal: its tasks, verdicts, commits, cost, and where to look."""
    settings = _settings()
    shown = progress.read(_find(goal))
    if as_json:
        print_json(result.public(settings, shown))
        return
    from rich.console import Console

    Console().print(progress.table(shown))
    tell(*result.lines(settings, shown))


@app.command()
def wait(
    goal: Goal,
    timeout: Annotated[float, typer.Option(help="Seconds until this command gives up (the goal goes on); 0: never.")] = 0,
    as_json: Json = False,
) -> None:
    """Show progress until a goal is over. Exit code 0: completed; 1: it ended otherwise."""
    settings = _settings()
    _finish(settings, progress.watch(_find(goal), timeout or None), as_json)


@app.command()
def cancel(goal: Goal, as_json: Json = False) -> None:
    """Cancel a goal; its sandboxes are gone within 5 s."""
    settings = _settings()
    run = _find(goal)
    with Airflow(settings) as airflow:
        commands.cancel(commands.Reach(transact, airflow), operator(), run)
    gone = _wait_until_gone(run)
    shown = progress.read(run)
    if as_json:
        print_json({**result.public(settings, shown), "sandboxes_gone": gone})
    else:
        still = "" if gone else " A sandbox is still there: look at `./airlock status` and `./airlock logs warden`."
        tell(f"{run} is {shown.state}.{still}")
    raise typer.Exit(0 if gone else 1)


def _wait_until_gone(run: str) -> bool:
    end = time.monotonic() + _GONE_S
    while time.monotonic() < end:
        if not look(lambda connection: goals.live_sandboxes(connection, run)):
            return True
        time.sleep(0.1)
    return False


@app.command()
def extend(
    goal: Goal,
    minutes: Annotated[float, typer.Option(help="How many minutes more.", min=0.1)],
    task: Annotated[str, typer.Option(help="Key of one task; default: all that are at work.")] = "",
    as_json: Json = False,
) -> None:
    """Give the tasks of a goal that are at work more time, up to the goal's deadline."""
    _settings()
    run = _find(goal)
    extended = transact(lambda connection: commands.extend(connection, operator(), run, task, minutes))
    if as_json:
        print_json(extended)
        return
    tell(*(f"{each.task}: until {each.expires_at:%Y-%m-%d %H:%M:%S}" for each in extended))


def _find(word: str) -> str:
    return look(lambda connection: goals.find_run(connection, word))
