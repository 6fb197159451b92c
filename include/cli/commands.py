"""The commands of ``./airlock``. Each asks one other module; this file only speaks to the person."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import tomllib
from typing import Annotated

import typer

from include import inert
from include.cli import audit as audit_cli
from include.cli import bench as bench_cli
from include.cli import chaos as chaos_cli
from include.cli import doctor
from include.cli import goal as goal_cli
from include.cli import repo as repo_cli
from include.cli.person import look, operator, say, tell, transact
from include.errors import AirlockError, BadInput
from include.fleet import service as fleet
from include.governance import commands as operators
from include.local import checks, control, keys
from include.settings import ROOT, load

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
images = typer.Typer(no_args_is_help=True, help="The image of the sandboxes.")
app.add_typer(goal_cli.app, name="goal")
app.add_typer(repo_cli.app, name="repo")
app.add_typer(bench_cli.app, name="bench")
app.add_typer(audit_cli.app, name="audit")
app.add_typer(images, name="images")
app.command()(chaos_cli.chaos)

BAD_INPUT = 2


def version() -> str:
    """Read Airlock's version from the one file that says it."""
    said: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return said


def _print_version(asked: bool) -> None:
    if asked:
        tell(f"airlock {version()}")
        raise typer.Exit


@app.callback()
def airlock(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Airlock: verified, merged work from a goal in plain words."""


@app.command()
def demo(
    down_after: Annotated[bool, typer.Option("--down", help="Stop everything at the end.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Use the offline model although there is a key.")] = False,
) -> None:
    """Start everything, work a goal on a sample repository, and show what came of it."""
    from include.cli import demo as the_demo

    raise typer.Exit(the_demo.run(load().home, say, down_after=down_after, offline=offline))


@app.command()
def up(offline: Annotated[bool, typer.Option("--offline", help="Use the offline model although there is a key.")] = False) -> None:
    """Start everything, or find it running."""
    control.up(load().home, say, offline=offline)
    status()


@app.command()
def down() -> None:
    """Revoke what is at work (not counted), stop everything, and check that nothing is left."""
    control.down(load().home, say)


@app.command()
def status() -> None:
    """Show the processes, the address and login of the UI, the model, and what holds the workers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    settings = load()
    if control.supervisor_pid(settings.home) is None:
        tell(f"Airlock is down ({settings.home}). `./airlock up` starts it.")
        return
    known = control.state(settings.home)
    shown = Table(title=Text(f"Airlock is {known.state} · {inert.line(str(settings.home))}", style="table.title"), title_justify="left")
    for column in ("process", "state", "pid", "restarts", "up for", "address"):
        shown.add_column(column, overflow="fold")
    for name, process in known.processes.items():
        age = f"{time.time() - process.since:.0f} s" if process.since and process.pid else ""
        shown.add_row(name, process.state, str(process.pid or ""), str(process.restarts), age, process.address)
    Console().print(shown)
    tell(f"UI      {settings.api_url}", f"login   admin / {settings.api_password}", f"model   {known.model}")
    _print_nodes()


def _print_nodes() -> None:
    try:
        for node in look(fleet.nodes):
            notice = f" ({node.notice})" if node.notice else ""
            tell(f"node    {node.name}: {node.rung}, room for {node.capacity}{'' if node.alive else ', silent'}{notice}")
    except AirlockError:
        tell("node    PostgreSQL does not answer yet")


@app.command()
def logs(
    process: Annotated[str, typer.Argument(help="Name of a process, see status; none: all of them.")] = "",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show the end of the processes' logs."""
    folder = load().logs_dir
    names = sorted(path.stem for path in folder.glob("*.log"))
    if process and process not in names:
        raise BadInput("process", f"{process!r} has no log", f"There are: {', '.join(names) or 'none yet'}.")
    files = [str(folder / f"{name}.log") for name in ([process] if process else names)]
    if files:
        raise typer.Exit(_tail([*(["-F"] if follow else []), *files]))
    say(f"No logs yet in {folder}.")


def _tail(arguments: list[str]) -> int:
    """Tell the ends of files: what stands in a log may be anybody's text."""
    with subprocess.Popen(["tail", "-n", "60", *arguments], stdout=subprocess.PIPE, text=True, errors="replace") as tail:
        assert tail.stdout is not None
        for line in tail.stdout:
            tell(line.removesuffix("\n"))
    return tail.returncode


@app.command()
def prune(
    events_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Age of events, messages and notices; default: the setting.")
    ] = None,
    transcripts_days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Age of transcripts, logs, hand-ins, bundles; default: the setting.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Take away what has grown old of goal runs that have ended. Money, decisions, verdicts and the audit log stay."""
    settings = control.require_up(load().home)
    gone = operators.prune(transact, settings, operator(), events_days, transcripts_days)
    tell(json.dumps(gone) if as_json else ", ".join(f"{count} {kind}" for kind, count in gone.items()))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run ruff, mypy and the tests; --fast: two minutes; --long: full counts; other arguments go to pytest alone."""
    from include.cli import testing

    raise typer.Exit(testing.run(list(context.args), say))


@app.command(name="doctor")
def examine(
    leftovers: Annotated[bool, typer.Option("--leftovers", help="Count what should be gone when nothing is at work.")] = False,
) -> None:
    """Look at the machine; with --leftovers at what was left behind."""
    settings = load()
    if leftovers:
        found = doctor.leftovers(settings)
        tell(", ".join(f"{count} {kind}" for kind, count in found.items()))
        raise typer.Exit(1 if any(found.values()) else 0)
    rows = checks.run(settings)
    for check in rows:
        tell(f"{'ok ' if check.ok else 'BAD'} {check.name}: {check.words}")
    tell(f"ok  python: {sys.version.split()[0]}", f"ok  model: {_model_words(keys.holders(settings.keys_dir))}")
    raise typer.Exit(0 if all(check.ok for check in rows) else 1)


def _model_words(agents: list[str]) -> str:
    return (
        f"keys of {', '.join(agents)}"
        if agents
        else "no key (set ANTHROPIC_API_KEY once and run `./airlock up`): the offline model answers"
    )


@app.command()
def reset(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Stop everything and delete all state of this home: goals, mirrors, logs, keys, the sample."""
    home = load().home
    if not yes and not typer.confirm(f"Delete everything in {home}?"):
        raise typer.Exit(1)
    control.down(home, say)
    doctor.delete_home(load(home))
    say(f"{home} is deleted.")


@images.command("build")
def build_image() -> None:
    """Build the image of the sandboxes from Debian's packages, if it is missing."""
    from include.sandbox import image

    settings = load()
    if problem := checks.docker_problem(settings.docker_host):
        raise BadInput("docker", problem, "Start dockerd; without Docker no image is needed, workers run in bubblewrap.")
    image.build_image(settings)
    tell(f"{settings.image} is there.")


def run() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 2 (bad input) or 1."""
    try:
        app(standalone_mode=True, prog_name="airlock")
    except AirlockError as error:
        say(f"airlock: {error}")
        sys.exit(BAD_INPUT if isinstance(error, BadInput | LookupError) else 1)
    except KeyboardInterrupt:
        sys.exit(130)
