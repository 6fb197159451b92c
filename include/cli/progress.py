"""Live progress of a goal run, read from PostgreSQL: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from include.cli import store
from include.database.unit_of_work import transaction
from include.errors import Unavailable
from include.tasks.models import ENDED_RUNS

OFFLINE = "offline playbook"
_COLOURS = {"COMPLETED": "green", "FAILED": "red", "ESCALATED": "red", "CANCELLED": "red", "REFUSED": "red", "PENDING_RETRY": "yellow"}


def money(micro: int) -> str:
    """A cost as a person reads it."""
    return f"${micro / 1_000_000:.4f}"


def read(run: str) -> dict[str, Any]:
    """The goal run as it is now."""
    with transaction("cli") as connection:
        return store.goal_run(connection, run)


def is_over(row: dict[str, Any]) -> bool:
    """Nothing more will happen to it by itself."""
    return row["state"] in ENDED_RUNS


def step_words(task: dict[str, Any]) -> str:
    """What a task does now, in a few words."""
    if task["state"] in ("PENDING", "COMPLETED"):
        return ""
    words = task["step"] if task["state"] in ("EXECUTING", "BLOCKED") else task["reason"]
    return " ".join((words or task["attempt_state"].lower()).split())[:70]


def table(row: dict[str, Any]) -> Table:
    """The whole state as one table."""
    title = f"{escape(row['title'])} · {row['run']} · {row['state']} · {row['wall_s']:.0f} s"
    caption = f"model: {OFFLINE}, which costs nothing" if row["offline"] else None
    shown = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for name in ("task", "state", "try", "now", "tokens", "cost"):
        shown.add_column(name, justify="right" if name in ("try", "tokens", "cost") else "left", no_wrap=name not in ("task", "now"))
    for task in row["tasks"]:
        colour = _COLOURS.get(task["state"], "cyan" if task["state"] != "PENDING" else "dim")
        cost = money(task["spent_micro"]) if task["epoch"] else ""
        state = f"[{colour}]{task['state']}[/]"
        shown.add_row(escape(task["title"]), state, str(task["epoch"] or ""), escape(step_words(task)), str(task["tokens"] or ""), cost)
    return shown


def lines(row: dict[str, Any], told: dict[str, str]) -> list[str]:
    """What changed since the last look, one line each; ``told`` remembers."""
    news = {"": f"goal {row['run']} {row['state']}" + (f": {row['reason']}" if row["reason"] else "")}
    for task in row["tasks"]:
        attempt = f" attempt {task['epoch']}" if task["epoch"] else ""
        words = step_words(task)
        news[task["key"]] = f"{task['key']}{attempt} {task['state']}" + (f": {words}" if words else "")
    changed = [line for key, line in news.items() if told.get(key) != line and not (key and line.endswith(" PENDING"))]
    told.update(news)
    return [f"{row['wall_s']:6.1f} s  {line}" for line in changed]


def watch(run: str, timeout_s: float | None = None) -> dict[str, Any]:
    """Show progress until the goal run is over.

    Args:
        run: id of the goal run.
        timeout_s: give up watching (not the goal) after so long.

    Returns:
        The run's last state, see ``store.goal_run``.

    Raises:
        Unavailable: the time is over; the goal goes on.
    """
    console = Console(stderr=True)
    end = time.monotonic() + timeout_s if timeout_s else None
    if not sys.stderr.isatty():
        return _plain(console, run, end)
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            row = read(run)
            live.update(table(row))
            if is_over(row):
                return row
            _pause(run, end)


def _plain(console: Console, run: str, end: float | None) -> dict[str, Any]:
    told: dict[str, str] = {}
    while True:
        row = read(run)
        for line in lines(row, told):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if is_over(row):
            return row
        _pause(run, end)


def _pause(run: str, end: float | None) -> None:
    if end and time.monotonic() > end:
        raise Unavailable(f"The goal run {run} is not over yet; it goes on. Watch it again with `./airlock goal wait {run}`.")
    time.sleep(0.5)
