"""Named SQL: each room keeps its statements in queries.sql beside its store; this reads them once."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

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
