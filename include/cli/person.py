"""The person at the command line: who gives a command, in which transactions, and how results are printed."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from include import inert
from include.database.unit_of_work import Connection, transaction
from include.governance.models import Operator

T = TypeVar("T")


def operator() -> Operator:
    """Name who gives a command: this machine's user."""
    return Operator(name=getpass.getuser(), via="command line")


def transact(work: Callable[[Connection], T]) -> T:
    """Run work in a transaction of its own, as the role ``cli``, and commit it."""
    with transaction("cli") as connection:
        return work(connection)


def look(view: Callable[[Connection], T]) -> T:
    """Read a view in a transaction of its own, as the role ``viewer``, which can write nothing."""
    with transaction("viewer") as connection:
        return view(connection)


def tell(*lines: str) -> None:
    """Print results for a person on stdout, each as one inert line: nothing else in this room prints."""
    for line in lines:
        print(inert.line(line), flush=True)


def say(line: str) -> None:
    """Print one inert line for a person on stderr: stdout is for results."""
    print(inert.line(line), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout: exact, and in ASCII."""
    print(json.dumps(value, indent=1, default=plain))


def plain(value: Any) -> Any:
    """Say in JSON's words what ``json`` does not know by itself: models become objects, times and ids become text."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be printed as JSON")
