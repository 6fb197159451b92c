"""What all steps of a goal share: which goal run and task they work for, and how a rework or an end is carried out."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from include import inert
from include.airflow_api.door import ask_door
from include.airflow_api.models import ReworkAsk
from include.flow.poke import poke
from include.flow.rework_trigger import ReworkTrigger
from include.flow.taken import Stopped, leave, stop
from include.flow.told import Told, quiet
from include.flow.waiting import until_done
from include.tasks.models import Rework, StepRef
from include.tasks.reworks import GaveUp

DOOR_PATIENCE_S = 2.0


def _has_ended(_: Any) -> None:
    """Airflow has stored the success: what comes next can be scheduled while this process still tidies up."""
    poke()


RETRIES: dict[str, Any] = {"retries": 10, "retry_delay": timedelta(seconds=3), "on_success_callback": _has_ended}
"""How often Airflow tries a step again; unrelated to attempts. Needed because a step dies with its scheduler, and Airflow 3.3 may fail a
deferred step on a late event. What must not be tried again fails for good (``fail``)."""


class Step(Told, BaseOperator):
    """A step of a goal. Subclasses write ``advance(context)``: idempotent, returns ``NotYet`` or the result.

    Args:
        task_key: key of the plan's task; empty for the steps of the whole goal.
    """

    epoch: int | None = None
    """Of the attempt that this process works for, once it knows."""

    def __init__(self, *, task_key: str = "", **kwargs: Any) -> None:
        kwargs = {**RETRIES, **kwargs}
        super().__init__(**kwargs)
        self.task_key = task_key

    def me(self, context: Any) -> StepRef:
        """Name this step, in the run of this context, for our services."""
        ti = context["ti"]
        return StepRef(ti.dag_id, context["run_id"], self.task_key, str(ti.id))

    def advance(self, context: Any) -> Any:
        """Go on from what is stored."""
        raise NotImplementedError

    def execute(self, context: Any) -> Any:
        """Run until there is a result, or until Airflow takes the step away. What Airflow shows of it is inert."""
        try:
            return inert.value(until_done(self, lambda: self.advance(context)))
        except Stopped:
            leave(context["ti"], self.log, self.epoch)
        except Exception as error:
            quiet(error)
            raise

    def resume(self, context: Any, event: Any = None) -> Any:  # noqa: ARG002 - the event only says that waiting is over
        """Go on after a deferral."""
        return self.execute(context)

    def on_kill(self) -> None:
        """Airflow's word that a person marked or cleared the live step; the process would else go on for 5 s."""
        stop()

    def carry_out(self, context: Any, decided: Rework | GaveUp) -> None:
        """Ask the door to clear the steps of a rework and return at once, or fail with the whole story."""
        if isinstance(decided, GaveUp):
            fail(f"{decided.state}: {decided.story}")
        self.log.warning("Rework: %s", decided.reason)
        me = self.me(context)
        ask = ReworkAsk(dag_id=me.dag_id, run_id=me.run_id, rework=str(decided.id), ti_id=me.ti_id)
        if not ask_door(ask, DOOR_PATIENCE_S):
            self.log.warning("The door did not answer within %g s; asking on from the triggerer.", DOOR_PATIENCE_S)
            self.defer(trigger=ReworkTrigger(**ask.model_dump()), method_name="resume")


def fail(words: str) -> NoReturn:
    """Fail the step for good, with words for a person: a line of the log, before Airflow's own trace."""
    words = inert.line(words)
    logging.getLogger("airflow.task").error(words)
    raise AirflowFailException(words) from None
