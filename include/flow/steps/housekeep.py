"""housekeep: the step of the DAG housekeeping. What has grown old is taken away, in batches that commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from include.database.unit_of_work import Connection, transaction
from include.flow.steps.base import Step
from include.goals import pruning
from include.governance import service as governance
from include.settings import settings

T = TypeVar("T")


class HousekeepStep(Step):
    """Prunes by the settings; returns how many went, by kind."""

    def advance(self, context: Any) -> Any:  # noqa: ARG002 - it looks at all goals
        """Prune; doing it again changes nothing."""
        gone = pruning.prune(_transact, settings())
        with transaction("airflow") as connection:
            governance.record(connection, "housekeeping", "pruned", "goal runs", dict(gone))
        self.log.info("Gone: %s.", ", ".join(f"{count} {kind}" for kind, count in gone.items()))
        return gone


def _transact(work: Callable[[Connection], T]) -> T:
    with transaction("airflow") as connection:
        return work(connection)
