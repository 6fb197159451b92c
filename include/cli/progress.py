"""Live progress of a goal run, read from PostgreSQL: a table that redraws itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from include import inert
from include.cli.person import look, say
from include.errors import Unavailable
from include.tasks.models import ENDED_RUNS, TaskRunState
from include.views import goals
from include.views.models import GoalView, TaskView

OFFLINE = "offline playbook"
_COLOURS = {"COMPLETED": "green", "FAILED": "red", "ESCALATED": "red", "CANCELLED": "red", "REFUSED": "red", "PENDING_RETRY": "yellow"}


def money(micro: int) -> str:
    """Write a cost as a person reads it."""
    return f"${micro / 1_000_000:.4f}"


def read(run: str) -> GoalView:
    """Read the goal run as it is now."""
    return look(lambda connection: goals.picture(connection, run))


def is_over(goal: GoalView) -> bool:
    """Say whether nothing more will happen to it by itself."""
    return goal.state in ENDED_RUNS


def step_words(task: TaskView) -> str:
    """Say what a task does now, in a few words."""
    if task.state in (TaskRunState.PENDING, TaskRunState.COMPLETED):
        return ""
    words = task.step if task.state in (TaskRunState.EXECUTING, TaskRunState.BLOCKED) else task.reason
    return inert.words(words or task.attempt_state.lower())[:70]


def table(goal: GoalView) -> Table:
    """Draw the whole state as one table; its texts are no markup."""
    title = Text(f"{inert.words(goal.title)} · {goal.run} · {goal.state} · {goal.wall_s:.0f} s", style="table.title")
    caption = f"model: {OFFLINE}, which costs nothing" if goal.offline else None
    shown = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for column in ("task", "state", "try", "now", "tokens", "cost"):
        shown.add_column(column, justify="right" if column in ("try", "tokens", "cost") else "left", no_wrap=column not in ("task", "now"))
    for task in goal.tasks:
        colour = _COLOURS.get(task.state, "cyan" if task.state != TaskRunState.PENDING else "dim")
        cost = money(task.spent_micro) if task.epoch else ""
        state = Text(task.state, style=colour)
        name, now = Text(inert.words(task.title)), Text(step_words(task))
        shown.add_row(name, state, str(task.epoch or ""), now, str(task.tokens or ""), cost)
    return shown


def lines(goal: GoalView, told: dict[str, str]) -> list[str]:
    """Say what changed since the last look, one line each; ``told`` remembers."""
    news = {"": f"goal {goal.run} {goal.state}" + (f": {goal.reason}" if goal.reason else "")}
    for task in goal.tasks:
        attempt = f" attempt {task.epoch}" if task.epoch else ""
        words = step_words(task)
        news[task.key] = f"{task.key}{attempt} {task.state}" + (f": {words}" if words else "")
    changed = [line for key, line in news.items() if told.get(key) != line and not (key and line.endswith(" PENDING"))]
    told.update(news)
    return [inert.line(f"{goal.wall_s:6.1f} s  {line}") for line in changed]


def watch(run: str, timeout_s: float | None = None) -> GoalView:
    """Show progress until the goal run is over.

    Args:
        run: id of the goal run.
        timeout_s: give up watching (not the goal) after so long.

    Returns:
        The run as it was at the last look.

    Raises:
        Unavailable: the time is over; the goal goes on.
    """
    end = time.monotonic() + timeout_s if timeout_s else None
    if not sys.stderr.isatty():
        return _plain(run, end)
    with Live(console=Console(stderr=True), refresh_per_second=4, transient=True) as live:
        while True:
            goal = read(run)
            live.update(table(goal))
            if is_over(goal):
                return goal
            _pause(run, end)


def _plain(run: str, end: float | None) -> GoalView:
    told: dict[str, str] = {}
    while True:
        goal = read(run)
        for line in lines(goal, told):
            say(line)
        if is_over(goal):
            return goal
        _pause(run, end)


def _pause(run: str, end: float | None) -> None:
    if end and time.monotonic() > end:
        raise Unavailable(f"The goal run {run} is not over yet; it goes on. Watch it again with `./airlock goal wait {run}`.")
    time.sleep(0.5)
