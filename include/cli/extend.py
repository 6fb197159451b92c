"""Give a goal's live leases more time, from the command line."""

from __future__ import annotations

from typing import Any

from include.cli import store
from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.leases import service as leases


def extend(run: str, key: str, minutes: float, who: str) -> list[dict[str, Any]]:
    """Extend the live leases to work of a goal run; its deadline bounds them.

    Args:
        run: id of the goal run.
        key: only of this task; empty: of all tasks at work.
        minutes: how much more.
        who: the person, for the audit log.

    Returns:
        For each extended lease its ``task`` and when it ``expires_at``.

    Raises:
        BadInput: nothing was extended.
    """
    with transaction("cli") as connection:
        live = [row for row in store.work_leases(connection, run) if key in ("", row["key"])]
        ends = [(row["key"], leases.renew(connection, row["id"], minutes * 60, who, "asked for on the command line")) for row in live]
    extended = [{"task": task, "expires_at": end} for task, end in ends if end is not None]
    if not extended:
        what = "no task of it is at work" if not live else "its leases reach the goal's deadline already, or were revoked"
        raise BadInput("task" if key else "goal", f"nothing to extend: {what}", f"See `./airlock goal show {run}`.")
    return extended
