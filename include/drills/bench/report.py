"""What every benchmark prints: one object with its rows and the machine, as a table for people or as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from math import ceil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from include.frozen import Frozen

WIDE = 160
"""Columns of a table that goes into a file: nobody folds it."""


class Figures(Frozen):
    """One benchmark's result. All rows have the same keys, and each key names its unit."""

    title: str
    rows: list[dict[str, Any]]
    ratios: dict[str, float]
    notes: list[str]


class Machine(Frozen):
    """The facts of a machine that a figure depends on."""

    cpu: str
    cores: int | None
    memory_mb: int
    system: str
    python: str
    load_1m: float


def machine() -> Machine:
    """Look at this machine."""
    model = next((line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    memory = next((int(line.split()[1]) // 1024 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return Machine(cpu=model, cores=os.cpu_count(), memory_mb=memory, system=platform.platform(),
                   python=platform.python_version(), load_1m=round(os.getloadavg()[0], 2))  # fmt: skip


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def percentile(values: list[float], share: float) -> float:
    """Find the smallest value that at least this share (0 to 1) of the values does not exceed; 0 if there are none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def show(report: Figures, as_json: bool) -> None:
    """Print a report on stdout.

    Args:
        report: what was measured.
        as_json: one JSON object instead of a table.
    """
    facts = machine()
    if as_json:
        print(json.dumps({**report.model_dump(), "machine": facts.model_dump()}, indent=1))
        return
    table = Table(title=report.title, title_justify="left")
    for column, example in (report.rows[0] if report.rows else {}).items():
        table.add_column(column.replace("_", " "), overflow="fold", justify="left" if isinstance(example, str) else "right")
    for row in report.rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
    for name, value in report.ratios.items():
        print(f"{name.replace('_', ' ')}: {value:g}")
    for note in report.notes:
        print(note)
    print(f"{facts.cpu}, {facts.cores} cores, {facts.memory_mb:,} MB, load {facts.load_1m}, Python {facts.python}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
