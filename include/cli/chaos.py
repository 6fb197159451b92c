"""``./airlock chaos``: kill everything again and again, or load the machine, while goals are under way, and count what is lost."""

from __future__ import annotations

import json
import random
import signal
import sys
from typing import Annotated, Literal

import typer


def chaos(
    kills: Annotated[int, typer.Option(min=0, help="Kills; a process is stopped for 40 s besides with every eighth.")] = 40,
    goals: Annotated[int, typer.Option(min=1, help="Goals of three to five tasks.")] = 12,
    seed: Annotated[int | None, typer.Option(help="Of the order and the times; default: a random one, which is printed.")] = None,
    engine: Annotated[Literal["auto", "docker", "bubblewrap"], typer.Option(help="What holds the workers.")] = "auto",
    points: Annotated[bool, typer.Option("--points", help="Arm every fault point once at the start.")] = False,
    load: Annotated[float, typer.Option(min=0, help="Processes a core that burn it meanwhile.")] = 0,
    minutes: Annotated[float, typer.Option(min=0, help="Keep --goals goals at work for so long, as one ends the next begins.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/cli.md).")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the home of the run, stopped, for a look.")] = False,
) -> None:
    """Kill everything, or load the machine, while goals are at work, in a home of its own; 1 if anything is lost, doubled or left.

    Without kills no attempt may be lost at all.
    """
    from include.drills.chaos import report
    from include.drills.chaos import run as the_run
    from include.drills.chaos.models import Options

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its home ends with it, however it is asked to end
    chosen = seed if seed is not None else random.SystemRandom().randrange(1_000_000)
    options = Options(kills=kills, goals=goals, seed=chosen, engine=engine, points=points, load=load, minutes=minutes)
    outcome = the_run.run(options, lambda line: print(line, file=sys.stderr, flush=True), keep=keep)
    if as_json:
        print(json.dumps(outcome.public(), indent=1))
    else:
        report.show(outcome)
    raise typer.Exit(0 if outcome.judgement.holds else 1)
