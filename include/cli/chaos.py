"""``./airlock chaos``: kill everything again and again, or load the machine, while goals are under way, and count what is lost."""

from __future__ import annotations

import random
import signal
from typing import Annotated, Any, Literal

import typer

from include.cli.options import of_model
from include.cli.person import print_json, say
from include.drills.chaos.models import Options


def _at_least(kind: Any, least: int, name: str) -> Any:
    return Annotated[kind, typer.Option(min=least, help=Options.model_fields[name].description)]


def _told(kind: Any, name: str) -> Any:
    return Annotated[kind, typer.Option(help=Options.model_fields[name].description)]


@of_model(
    Options,
    kills=_at_least(int, 0, "kills"),
    goals=_at_least(int, 1, "goals"),
    seed=(_told(int | None, "seed"), None),
    engine=_told(Literal["auto", "docker", "bubblewrap"], "engine"),
    points=Annotated[bool, typer.Option("--points", help=Options.model_fields["points"].description)],
    load=_at_least(float, 0, "load"),
    minutes=_at_least(float, 0, "minutes"),
)
def chaos(
    asked: dict[str, Any],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (docs/cli.md).")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the home of the run, stopped, for a look.")] = False,
) -> None:
    """Kill everything, or load the machine, while goals are at work, in a home of its own; 1 if anything is lost, doubled or left.

    Without kills no attempt may be lost at all.
    """
    from include.drills.chaos import report
    from include.drills.chaos import run as the_run

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its home ends with it, however it is asked to end
    seed = asked.pop("seed")
    options = Options(**asked, seed=random.SystemRandom().randrange(1_000_000) if seed is None else seed)
    outcome = the_run.run(options, say, keep=keep)
    if as_json:
        print_json(outcome.public())
    else:
        report.show(outcome)
    raise typer.Exit(0 if outcome.judgement.holds else 1)
