"""Named SQL: each room keeps its statements in queries.sql beside its store; this reads them once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_NAME = re.compile(r"^-- name: ([a-z_]+)[ \t]*(?:\|.*)?$", re.MULTILINE)


def load(beside: str) -> SimpleNamespace:
    """Read ``queries.sql`` beside a Python file.

    A statement starts with a line ``-- name: grant_lease | one sentence on what it does``.

    Args:
        beside: the ``__file__`` of the asking module.

    Returns:
        A namespace with one attribute of type ``str`` a statement.
    """
    text = (Path(beside).parent / "queries.sql").read_text()
    parts = _NAME.split(text)[1:]
    return SimpleNamespace(**{name: sql.strip().rstrip(";") for name, sql in zip(parts[::2], parts[1::2], strict=True)})


def columns(names: str, rows: Iterable[Sequence[Any]]) -> dict[str, list[Any]]:
    """Rows as the arrays that a statement's ``unnest`` takes.

    Args:
        names: of the arrays, apart by spaces; as many as each row has values.
        rows: any number of them, also none.
    """
    keys = names.split()
    arrays = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in keys]
    return dict(zip(keys, arrays, strict=True))
