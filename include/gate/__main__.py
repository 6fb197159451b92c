"""The gatekeeper's process: loads Great Expectations once, then judges whatever is asked, as soon as it is asked."""

from __future__ import annotations

import logging
import signal
import sys
import time
from types import FrameType
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from include import faults
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.gate.gatekeeper import Gatekeeper, Sheet
from include.settings import settings

_SQL = load(__file__)
_LOG = logging.getLogger("gatekeeper")
LOOK_AGAIN_S = 5.0
"""Seconds after which it looks without having been told, should a notice be lost."""


def judge_open(connection: Connection, gatekeeper: Gatekeeper) -> int:
    """Judge what is not judged yet; returns how many there were. The connection is in autocommit: each answer is one statement."""
    asked = rows.every(connection, Sheet, _SQL.open_verdicts)
    for answer in gatekeeper.judge(asked):
        findings = Jsonb([finding.model_dump() for finding in answer.findings])
        values = {"id": answer.id, "green": answer.green, "findings": findings, "suite_sha256": answer.suite_sha256}
        faults.point("gate.verdict.before-commit")
        connection.execute(_SQL.judge, values)
        faults.point("gate.verdict.after-commit")
        _LOG.info("%s: %s", answer.id, "green" if answer.green else "red: " + "; ".join(finding.message for finding in answer.findings))
    return len(asked)


def serve(gatekeeper: Gatekeeper) -> None:
    """Judge until the connection breaks."""
    dsn = settings().dsn("gatekeeper")
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row, connect_timeout=5, application_name="gatekeeper") as connection:
        connection.execute("LISTEN gatekeeper")
        _LOG.info("ready")
        while True:
            while judge_open(connection, gatekeeper):
                pass
            for _ in connection.notifies(timeout=LOOK_AGAIN_S, stop_after=1):
                pass


def main() -> None:
    """Serve for ever; a lost connection is made again."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _stop)
    gatekeeper = Gatekeeper()
    while True:
        try:
            serve(gatekeeper)
        except psycopg.OperationalError as error:
            _LOG.warning("PostgreSQL does not answer (%s); trying again", str(error).strip())
            time.sleep(1)


def _stop(number: int, frame: FrameType | None) -> Any:  # noqa: ARG001 - the form of a signal handler
    sys.exit(0)


if __name__ == "__main__":
    main()
