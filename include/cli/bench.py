"""``./airlock bench``: what this machine can do, measured with servers of its own; each with --json."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Measure, with temporary servers that touch no state of yours.")
Json = Annotated[bool, typer.Option("--json", help="Print JSON (docs/cli.md).")]


@app.command()
def transport(
    messages: Annotated[int, typer.Option(help="Messages that each variant takes.", min=1_000)] = 40_000,
    as_json: Json = False,
) -> None:
    """Measure durable messages per second of one broker, and the round trip of a permission request."""
    from include.drills.bench import report
    from include.drills.bench import transport as bench

    report.show(bench.run(messages), as_json)


@app.command()
def lease(
    count: Annotated[int, typer.Option(help="Sandboxes for each engine and way to be over.", min=1, max=200)] = 20,
    as_json: Json = False,
) -> None:
    """Measure how late after lease expiry, budget breach, missed heartbeat and UI cancel the container is gone."""
    from include.drills.bench import lease as bench
    from include.drills.bench import report

    report.show(bench.run(count), as_json)


@app.command()
def state(
    count: Annotated[int, typer.Option(help="Transitions, steps and checkpoints.", min=300)] = 1_000,
    as_json: Json = False,
) -> None:
    """Measure a durable transition against a DBOS step and a LangGraph checkpoint, which are installed for it and removed."""
    from include.drills.bench import report
    from include.drills.bench import state as bench

    report.show(bench.run(count), as_json)


@app.command()
def goal(
    count: Annotated[int, typer.Option(help="Goals, one after the other.", min=1, max=50)] = 3,
    as_json: Json = False,
) -> None:
    """Tell where each second of the demo's goal goes, beside a plain Airflow DAG of the same shape."""
    from include.drills.bench import goal as bench
    from include.drills.bench import report

    report.show(bench.run(count), as_json)
