"""``./airlock repo``: repositories that a form or REST may name."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from include.cli import store
from include.cli.submit import git_root
from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.governance import service as governance
from include.local import control
from include.settings import load

app = typer.Typer(no_args_is_help=True, help="Repositories that goals may name.")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits, dot, dash, underscore.")],
    path: Annotated[Path, typer.Argument(help="Folder of a git repository.")],
) -> None:
    """Register a repository, so that the form in the UI and REST may name it."""
    control.require_up(load().home)
    if not _NAME.fullmatch(name):
        raise BadInput(
            "name", f"{name!r} is no name for a repository", "Use up to 64 lower-case letters, digits, dots, dashes, underscores."
        )
    root = git_root(path)
    with transaction("cli") as connection:
        store.add_repository(connection, name, root, listed=True)
        governance.record(connection, getpass.getuser(), "repository.added", name, {"path": str(root)})
    print(f"{name} is {root}.")


@app.command(name="list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the registered repositories; those that were only named by a path are marked."""
    control.require_up(load().home)
    with transaction("cli") as connection:
        rows = store.repositories(connection)
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['name']}  {row['path']}{'' if row['listed'] else '  (command line only)'}")
