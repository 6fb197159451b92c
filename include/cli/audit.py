"""``./airlock audit``: verify the chain of the audit log, and show its newest entries."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from include import inert
from include.cli.person import look, print_json, tell
from include.governance import service
from include.governance.models import LoggedEntry
from include.local import control
from include.settings import load

app = typer.Typer(no_args_is_help=True, help="The audit log: every decision and every command of a person, chained by hash.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def verify(
    head: Annotated[str, typer.Option(help="The head of an earlier verify, kept elsewhere: it must still be in the chain.")] = "",
    as_json: Json = False,
) -> None:
    """Walk every link of the chain; print how many there are and the head. Exit code 1: it is broken."""
    control.require_up(load().home)
    chain = look(lambda connection: service.verify(connection, head or None))
    if as_json:
        tell(json.dumps({**chain._asdict(), "whole": chain.whole}))
    elif chain.whole:
        tell(f"{chain.entries} entries, every link holds.", f"head {chain.head}")
    else:
        tell(f"BROKEN at entry {chain.broken_at}: {chain.problem}. {chain.entries} entries before it hold.", f"head {chain.head}")
    raise typer.Exit(0 if chain.whole else 1)


@app.command(name="log")
def log_(
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="How many entries.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the newest entries, the last first."""
    control.require_up(load().home)
    entries = look(lambda connection: service.newest(connection, limit))
    if as_json:
        print_json(entries)
        return
    tell(*map(row, entries))


def row(entry: LoggedEntry) -> str:
    """Write an entry as a line of the log."""
    words = ", ".join(f"{name}={value}" for name, value in entry.detail.items() if name in ("reason", "decision", "rules", "path"))
    return inert.line(f"{entry.position:>6}  {entry.at:%Y-%m-%d %H:%M:%S}  {entry.actor:12}  {entry.action:20}  {entry.subject}  {words}")
