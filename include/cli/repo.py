"""``./airlock repo``: repositories that a form or REST may name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from include.cli.person import look, operator, print_json, tell, transact
from include.cli.submit import git_root
from include.governance import commands
from include.local import control
from include.repository import service as repositories
from include.settings import load

app = typer.Typer(no_args_is_help=True, help="Repositories that goals may name.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, dot, dash, underscore.")],
    path: Annotated[Path, typer.Argument(help="Folder of a git repository.")],
) -> None:
    """Register a repository, so that the form in the UI and REST may name it."""
    control.require_up(load().home)
    root = git_root(path)
    transact(lambda connection: commands.add_repository(connection, operator(), name, root))
    tell(f"{name} is {root}.")


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the registered repositories; those that were only named by a path are marked."""
    control.require_up(load().home)
    found = look(repositories.every)
    if as_json:
        print_json(found)
        return
    tell(*(f"{known.name}  {known.path}{'' if known.listed else '  (command line only)'}" for known in found))
