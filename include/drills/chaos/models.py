"""What a run of chaos asked for, what it found at the end, and what that is worth. Plain data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from include.frozen import Frozen
from include.governance.models import Chain


class Options(Frozen):
    """A run of chaos."""

    kills: int = Field(default=40, ge=0, description="Kills; a process is stopped for 40 s besides with every eighth.")
    goals: int = Field(default=12, ge=1, description="Goals of three to five tasks.")
    seed: int = Field(description="Of the order and the times; default: a random one, which is printed.")
    engine: Literal["auto", "docker", "bubblewrap"] = Field(default="auto", description="What holds the workers.")
    points: bool = Field(default=False, description="Arm every fault point once at the start: each kills whoever comes by first.")
    load: float = Field(default=0, ge=0, description="Processes a core that burn it meanwhile.")
    minutes: float = Field(default=0, ge=0, description="Keep --goals goals at work for so long, as one ends the next begins.")

    @property
    def at_once(self) -> int:
        """Tell how many goals are under way at the same time."""
        return self.goals if self.minutes else 4

    @property
    def kills_nothing(self) -> bool:
        """Tell whether nothing is done to any process, so that no attempt may be lost."""
        return self.kills == 0 and not self.points


class ClientGoal(Frozen):
    """One goal as its client saw it."""

    key: str
    tasks: int
    calls: int = Field(description="How often it was submitted under its key until it was confirmed.")
    acknowledged: bool
    said: str = Field(default="", description="What the client was told, if not a confirmation.")


class Run(Frozen):
    """A goal run at the end."""

    key: str
    run: str
    state: str
    reason: str
    landing: str
    ended: bool
    wall_s: float


class TaskEnd(Frozen):
    """A task run at the end."""

    id: str
    run: str
    state: str
    epoch: int
    lost: int = Field(description="Attempts that were lost and did not count.")
    counted: int = Field(description="Attempts that failed and counted.")


class Event(Frozen):
    """A change of state, in the order of writing."""

    machine: str
    subject: str
    before: str
    after: str


class Overspent(Frozen):
    """Rows that hold more than their limit, or whose sums do not agree, by kind."""

    goal_runs: int = 0
    goal_runs_by_their_calls: int = 0
    goal_runs_with_a_reserve: int = 0
    leases: int = 0
    leases_by_their_calls: int = 0
    task_runs_by_their_calls: int = 0
    agent_days: int = 0


class Stale(Frozen):
    """Effects of an epoch after a newer one had begun, by kind."""

    merges: int = 0
    messages: int = 0
    model_calls: int = 0
    verdicts: int = 0


class Spent(Frozen):
    """Micro-USD of all model calls, how many they were, and how many were settled at their worst case."""

    micro: int = 0
    calls: int = 0
    unknown: int = 0


class Stored(Frozen):
    """What the database says at the end."""

    runs: tuple[Run, ...]
    tasks: tuple[TaskEnd, ...]
    merges: tuple[str, ...] = Field(description="Task runs with a row in merges.")
    events: tuple[Event, ...]
    audit: Chain
    overspent: Overspent
    open_calls: int
    stale: Stale
    failures: tuple[str, ...] = Field(default=(), description="How attempts ended that did not merge, most frequent first.")
    taken: tuple[str, ...] = Field(default=(), description="Sandboxes that were ended as unwatched, or for what a person did.")
    spent: Spent = Spent()


class Remains(Stored):
    """All that was found once every goal had come to its end."""

    asked: tuple[ClientGoal, ...]
    on_main: tuple[str, ...] = Field(description="Trailers Task-Run of every commit of main.")
    kept: tuple[str, ...] = Field(description="Trailers Task-Run on goal branches that did not land.")
    leftovers: dict[str, int]
    main_is_green: bool
    manual_steps: tuple[str, ...] = Field(default=(), description="What did not come back by itself or by `airlock up`.")


class Counters(Frozen):
    """The six counters of a durability test."""

    attempted: int
    acknowledged: int
    lost: int
    unexpected: int
    duplicated: int
    recovered: int


class Bar(Frozen):
    """One figure that must hold."""

    name: str
    found: int
    holds: bool
    examples: tuple[str, ...] = ()


class Judgement(Frozen):
    """What the facts are worth."""

    goals: Counters
    merges: Counters
    bars: tuple[Bar, ...]

    @property
    def holds(self) -> bool:
        """Tell whether every bar holds."""
        return all(bar.holds for bar in self.bars)


class Fault(Frozen):
    """One thing that was done to the stack."""

    at_s: float = Field(description="Seconds since the first goal was submitted.")
    kind: Literal["kill", "stop", "wipe", "point"]
    target: str = Field(description="A process; of a point its name.")
    recovery_s: float | None = Field(default=None, description="Until it was ready again; null: killed again before, or not measured.")

    @property
    def is_kill(self) -> bool:
        """Tell whether it is a SIGKILL, from outside or at a fault point."""
        return self.kind != "stop"


class ChaosReport(Frozen):
    """Everything that a run prints."""

    options: Options
    faults: tuple[Fault, ...]
    facts: Remains
    judgement: Judgement
    wall_s: float
    words: tuple[str, ...] = Field(description="What one must know to read the figures.")

    def public(self) -> dict[str, Any]:
        """Make what ``--json`` prints: all but the long lists."""
        long = {"events", "on_main", "kept", "merges"}
        found = self.model_dump(mode="json", exclude={"facts": long})
        return {**found, "ok": self.judgement.holds, "events": len(self.facts.events), "audit": self.facts.audit.entries}
