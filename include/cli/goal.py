"""``./airlock goal``: submit, list, show, wait, cancel, extend; each with --json."""

from __future__ import annotations

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from include.cli import progress, result, store
from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.local import control, keys
from include.settings import Settings, load

app = typer.Typer(no_args_is_help=True, help="Goals: what you want, against one repository.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON (docs/cli.md).")]
Goal = Annotated[str, typer.Argument(help="A run, goal, DAG or key, or the beginning of one.")]


def _settings() -> Settings:
    return control.require_up(load().home)


def _print(value: Any) -> None:
    print(json.dumps(value, indent=1, default=result.plain))


def exit_code(row: dict[str, Any]) -> int:
    """0: completed. 1: it ended otherwise."""
    return 0 if row["state"] == "COMPLETED" else 1


@app.command()
def submit(
    text: Annotated[str, typer.Argument(help="What you want, in plain language.")],
    repo: Annotated[str, typer.Option(help="Path of a git repository, or a registered name.")],
    base: Annotated[str, typer.Option(help="Branch that the work starts from and lands on.")] = "main",
    agent: Annotated[str, typer.Option(help="Agent that plans and pays.")] = keys.DEFAULT_AGENT,
    budget_usd: Annotated[float, typer.Option(help="Most that it may cost, in US dollars.")] = 5.0,
    deadline: Annotated[str, typer.Option(help="Time for all of it: a number and s, m, h or d.")] = "2h",
    landing: Annotated[str, typer.Option(help="per_goal: land once at the end. per_task: land each task.")] = "per_goal",
    key: Annotated[str, typer.Option(help="Idempotency key: the same key and body is the same goal.")] = "",
    plan: Annotated[Path | None, typer.Option(help="A plan of your own (JSON, docs/plan.schema.json).")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it is over.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a goal."""
    from include.cli import submit as intake

    settings = _settings()
    values: dict[str, Any] = {"goal": text, "repository": repo, "base": base, "agent": agent, "budget_usd": budget_usd}
    values |= {"deadline": deadline, "landing": landing, "key": key, "plan": intake.read_plan(plan) if plan else None}
    intake.request(**values)
    _require_broker(settings, agent)
    request = intake.request(**{**values, "repository": intake.register(repo)})
    _warn_of_uncommitted(intake.repository_path(request.repository))
    submitted = intake.submit(settings, request)
    if wait:
        _finish(settings, progress.watch(submitted.run), as_json)
    row = progress.read(submitted.run)
    if as_json:
        _print(result.public(settings, row))
    else:
        print(f"{submitted.run}  {result.address(settings, row)}\nWatch it: ./airlock goal wait {submitted.run}")


def _warn_of_uncommitted(path: Path) -> None:
    from include.repository import as_person

    if count := as_person.uncommitted(path):
        print(f"Note: {count} changed files in {path} are not committed, and so not part of the goal.", file=sys.stderr)


def _require_broker(settings: Settings, agent: str) -> None:
    with transaction("cli") as connection:
        known = store.agents(connection)
    if agent not in known:
        raise BadInput("agent", f"{agent!r} is not an agent", f"Known: {', '.join(known)}.")
    if f"broker-{agent}" not in control.state(settings.home).processes:
        variable = f"ANTHROPIC_API_KEY_{agent.upper().replace('-', '_')}"
        raise BadInput(
            "agent", f"no broker runs for {agent!r}: it has no model key", f"Set {variable}, then `./airlock down` and `./airlock up`."
        )


def _finish(settings: Settings, row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        _print(result.public(settings, row))
    else:
        print(result.text(settings, row))
    raise typer.Exit(exit_code(row))


@app.command(name="list")
def list_(as_json: Json = False) -> None:
    """Show the goals, newest first."""
    _settings()
    with transaction("cli") as connection:
        rows = store.goals(connection)
    if as_json:
        _print(rows)
        return
    for row in rows:
        print(f"{row['run'] or '-':14} {row['state'] or '-':18} {row['repository']:16} {row['created_at']:%Y-%m-%d %H:%M}  {row['title']}")


@app.command()
def show(goal: Goal, as_json: Json = False) -> None:
    """Show one goal: its tasks, verdicts, commits, cost, and where to look."""
    settings = _settings()
    row = progress.read(_find(goal))
    if as_json:
        _print(result.public(settings, row))
        return
    from rich.console import Console

    Console().print(progress.table(row))
    print(result.text(settings, row))


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
    from include.cli.cancel import cancel as cancel_run

    settings = _settings()
    run = _find(goal)
    gone = cancel_run(settings, run, getpass.getuser())
    row = progress.read(run)
    if as_json:
        _print({**result.public(settings, row), "sandboxes_gone": gone})
    else:
        print(
            f"{run} is {row['state']}."
            + ("" if gone else " A sandbox is still there: look at `./airlock status` and `./airlock logs warden`.")
        )
    raise typer.Exit(0 if gone else 1)


@app.command()
def extend(
    goal: Goal,
    minutes: Annotated[float, typer.Option(help="How many minutes more.", min=0.1)],
    task: Annotated[str, typer.Option(help="Key of one task; default: all that are at work.")] = "",
    as_json: Json = False,
) -> None:
    """Give the tasks of a goal that are at work more time, up to the goal's deadline."""
    from include.cli.extend import extend as extend_run

    _settings()
    extended = extend_run(_find(goal), task, minutes, getpass.getuser())
    if as_json:
        _print(extended)
        return
    for row in extended:
        print(f"{row['task']}: until {row['expires_at']:%Y-%m-%d %H:%M:%S}")


def _find(word: str) -> str:
    with transaction("cli") as connection:
        return store.find_run(connection, word)
