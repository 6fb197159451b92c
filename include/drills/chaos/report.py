"""A run of chaos as a person reads it."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from include.drills.chaos import rules
from include.drills.chaos.models import ChaosReport, Counters


def show(outcome: ChaosReport) -> None:
    """Print tables: counters, bars, recovery times, ends of goals, and what one must know."""
    console = Console()
    console.print(_counters(outcome), _bars(outcome), _recovery(outcome), _ends(outcome))
    for line in outcome.facts.failures:
        console.print(f"attempt   {line}", markup=False, highlight=False)
    console.print(_looked_at(outcome), markup=False, highlight=False)
    console.print(_trials(outcome), markup=False, highlight=False)
    for line in outcome.words:
        console.print(line, markup=False, highlight=False)
    if others := [run for run in outcome.facts.runs if run.state != rules.COMPLETED]:
        console.print(f"[red]{len(others)} of {len(outcome.facts.runs)} goals ended, but not COMPLETED; the table above says why.[/]")
    console.print("Every bar holds." if outcome.judgement.holds else "[red]A BAR IS BROKEN.[/]")


def _looked_at(outcome: ChaosReport) -> str:
    facts, spent = outcome.facts, outcome.facts.spent
    rows = f"{len(facts.events)} changes of state, {facts.audit.entries} audit entries, {spent.calls} model calls"
    return f"Looked at {rows} worth ${spent.micro / 1_000_000:.2f} ({spent.unknown} at their worst case)."


def _trials(outcome: ChaosReport) -> str:
    kills, goals = sum(fault.is_kill for fault in outcome.faults), len(outcome.facts.asked)
    ran = f"N = {kills} kills and {len(outcome.faults) - kills} stops over {goals} goals in {outcome.wall_s:.0f} s"
    bounds = f"{100 * rules.bound(kills):.1f} % a kill and {100 * rules.bound(goals):.1f} % a goal"
    return (
        f"{ran} (seed {outcome.options.seed}, {outcome.options.engine}). 0 failures in N trials means below 3/N with 95 % confidence: "
        f"here {bounds}."
    )


def _counters(outcome: ChaosReport) -> Table:
    table = Table(title="What was asked for, and what is there", title_justify="left")
    for name in ("", *Counters.model_fields):
        table.add_column(name, justify="right" if name else "left")
    for name, counters in (("goals", outcome.judgement.goals), ("merges", outcome.judgement.merges)):
        table.add_row(name, *(str(value) for value in counters.model_dump().values()))
    return table


def _bars(outcome: ChaosReport) -> Table:
    table = Table(title="What must hold", title_justify="left")
    for name in ("bar", "found", "", "which"):
        table.add_column(name, justify="right" if name == "found" else "left")
    for bar in outcome.judgement.bars:
        table.add_row(bar.name, str(bar.found), "holds" if bar.holds else "[red]BROKEN[/]", escape("; ".join(bar.examples)))
    return table


def _recovery(outcome: ChaosReport) -> Table:
    table = Table(title="From the kill until it is ready again, in seconds", title_justify="left")
    for name in ("target", "kills", "p50", "p95", "max", "without a time"):
        table.add_column(name, justify="left" if name == "target" else "right")
    timed = [fault for fault in outcome.faults if fault.kind in ("kill", "wipe")]
    kills = Counter(fault.target for fault in timed)
    for target, count in sorted(kills.items()):
        times = [fault.recovery_s for fault in timed if fault.target == target and fault.recovery_s is not None]
        figures = (rules.quantile(times, 0.5), rules.quantile(times, 0.95), max(times, default=0.0))
        table.add_row(target, str(count), *(f"{figure:.1f}" if times else "-" for figure in figures), str(count - len(times)))
    if points := [fault.target for fault in outcome.faults if fault.kind == "point"]:
        table.add_row(f"at {len(set(points))} fault points", str(len(points)), "-", "-", "-", str(len(points)))
    return table


def _ends(outcome: ChaosReport) -> Table:
    table = Table(title="How the goals ended", title_justify="left")
    for name in ("state", "goals", "wall time p50 s", "max s", "why, if not completed"):
        table.add_column(name, justify="left" if name[0] in "sw" and "wall" not in name else "right")
    for state, count in Counter(run.state for run in outcome.facts.runs).most_common():
        runs = [run for run in outcome.facts.runs if run.state == state]
        walls = [run.wall_s for run in runs]
        why = "" if state == rules.COMPLETED else "; ".join(f"{run.run}: {run.reason[:200]}" for run in runs)
        table.add_row(state or "no run", str(count), f"{rules.quantile(walls, 0.5):.0f}", f"{max(walls):.0f}", escape(why))
    return table
