"""A whole run of chaos in a home of its own: up, goals and kills, drain, look, down."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include import settings as settings_module
from include.agents import budgets
from include.database.unit_of_work import transaction
from include.drills import person
from include.drills.chaos import burners, collect, rules, work
from include.drills.chaos.client import Clients
from include.drills.chaos.killer import BUDGET_MICRO, UP_S, Killer
from include.drills.chaos.models import ChaosReport, Options
from include.errors import Unavailable
from include.local import control, health, runtime
from include.local.control import Say
from include.settings import ROOT, Settings

DRAIN_S = 1200.0
LOST_CAP = 200
REPOSITORY = "chaos"
WORDS = (
    f"AIRLOCK_INFRASTRUCTURE_ATTEMPTS is {LOST_CAP} instead of 10: a task here is hit far more often than any would be. "
    "A goal has $100 and 23 h, and its agent a day and month with room for all of them. "
    "Every other timeout, cap and heartbeat is the default.",
    "The offline model answers as if it were paid (real prices, a key that is none), so that money is counted; nobody is paid. "
    "It stands for the endpoint, and is not killed.",
    "Kills come from shuffled decks that hold every target once and three fault points, where whoever comes by next dies: 2 to 8 s after "
    "the one before, or as soon as all is whole again, and not before their share of the tasks is merged (at most 45 s).",
)


def run(options: Options, say: Say, keep: bool = False) -> ChaosReport:
    """Run chaos in a home of its own, and judge what is left.

    Args:
        options: how much of what.
        say: called with each line a person should see.
        keep: leave the home (down) for a look; it is left anyway when a bar is broken or a goal did not come to COMPLETED.

    Raises:
        BadInput: the machine lacks something.
        Unavailable: the stack did not come up, or not again after a kill.
    """
    home = _home(options, say)
    try:
        outcome = _in(home, options, say)
        keep = keep or not outcome.judgement.holds or any(run.state != rules.COMPLETED for run in outcome.facts.runs)
    finally:
        if keep:
            say(f"{home} is left, stopped, with its logs and chaos.json. Delete it when you have looked.")
        else:
            person.delete_home(settings_module.load(home))
    return outcome


def _in(home: Path, options: Options, say: Say) -> ChaosReport:
    (home / "faults").mkdir()
    (home / "faults").chmod(0o777)  # the relay, which has no rights, dies at points too
    (home / "keys").mkdir(mode=0o700)
    (home / "keys" / "jarvis.key").write_text("sk-none-chaos")
    runtime.update(home, api_port=runtime.free_port())  # not the default one, which another Airlock of this machine may take meanwhile
    goals = work.goals(_most(options), options.seed)
    work.write_playbooks(home / "playbooks", goals, options.seed)
    sample = work.make_repository(home / "sample")
    with _model(home) as address:
        os.environ["ANTHROPIC_BASE_URL"] = address
        settings = control.up(home, say, patience_s=UP_S)
        try:
            return _run(settings, options, goals, sample, say)
        finally:
            control.down(home, say)


def _run(settings: Settings, options: Options, goals: list[work.PlayedGoal], sample: Path, say: Say) -> ChaosReport:
    with transaction("owner") as connection:
        budgets.raise_all(connection, BUDGET_MICRO)
    repository = person.register(str(sample))
    began = time.monotonic()
    with burners.load(options.load, 60 * options.minutes + DRAIN_S) as burning:
        if burning:
            say(f"{burning} processes burn the machine's processors.")
        clients = Clients(settings, goals, repository, options.at_once, say, 60 * options.minutes)
        killer = Killer(settings, options, clients, sum(goal.tasks for goal in goals), say)
        killer.play()
        if options.kills:
            say(f"{time.monotonic() - began:7.1f} s  the last kill; now all goals go to their end")
        clients.rest(DRAIN_S)
    clients.join(DRAIN_S)
    wall_s = time.monotonic() - began
    facts = collect.facts(settings, clients.asked, sample, repository, killer.manual)
    faults = tuple(killer.watch.end())
    outcome = ChaosReport(options=options, faults=faults, facts=facts, judgement=rules.judge(facts, options.kills_nothing),
                      wall_s=round(wall_s, 1), words=_words(options))  # fmt: skip
    (settings.home / "chaos.json").write_text(outcome.model_dump_json(indent=1))
    return outcome


def _most(options: Options) -> int:
    """Count the goals to write playbooks for: with ``--minutes`` more than can be worked in that time."""
    return options.goals * (1 + math.ceil(2 * options.minutes))


def _words(options: Options) -> tuple[str, ...]:
    if not options.load:
        return WORDS
    cores = len(os.sched_getaffinity(0))
    return (*WORDS, f"Beside it {round(options.load * cores)} processes burned the {cores} cores.")


def _home(options: Options, say: Say) -> Path:
    """Make a home that is nobody's, with its settings in the environment of this process and all that it starts."""
    home = Path(tempfile.mkdtemp(prefix="airlock-chaos-"))
    home.chmod(0o711)  # sandboxes without rights reach their directories in it
    for name in [name for name in os.environ if name.startswith(("AIRLOCK_", "AIRFLOW", "ANTHROPIC"))]:
        del os.environ[name]
    os.environ |= {
        "AIRLOCK_HOME": str(home),
        "AIRLOCK_ENGINE": options.engine,
        "AIRLOCK_INFRASTRUCTURE_ATTEMPTS": str(LOST_CAP),
        "AIRLOCK_FAULTS": str(home / "faults"),
    }
    settings_module.settings.cache_clear()
    say(f"The home of this run is {home}.")
    return home


@contextmanager
def _model(home: Path) -> Iterator[str]:
    """Run the offline model outside the home's supervisor: it stands for the endpoint."""
    port = runtime.free_port()
    command = [sys.executable, "-m", "include.offline.model", "--port", str(port), "--playbooks", str(home / "playbooks")]
    with (home / "model.log").open("wb") as log:
        model = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while not health.tcp(port):
            if time.monotonic() > end or model.poll() is not None:
                raise Unavailable(f"The offline model does not start: {(home / 'model.log').read_text()[-300:]}. Run the command again.")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        model.terminate()
        model.wait(10)
