"""What goes to workers: assignments of new leases, news of old ones, and what waits in the outbox."""

from __future__ import annotations

from include.broker import assignments
from include.broker.process import Process, log
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.errors import AirlockError
from include.messages import outbox
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)


class Sending:
    """The loops of a broker process that write to the streams."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._server_run = ""

    async def look_at_leases(self) -> None:
        """Read the live leases; assign the new ones, cancel the revoked, tell of the renewed."""
        process = self.process
        process.live = set(await process.transact(self._live))
        process.wake.live.set()
        for attempt in await process.transact(lambda c: assignments.to_assign(c, process.agent)):
            await self._assign(attempt)
        await process.transact(lambda c: assignments.cancel_revoked(c, process.agent))
        await process.transact(lambda c: assignments.tell_renewed(c, process.agent))

    async def _assign(self, attempt: AttemptRef) -> None:
        process = self.process
        try:
            if await process.transact(lambda c: assignments.assign(c, process.streams, process.agent, attempt, process.settings)):
                log.info("assigned %s/%s", *attempt)
        except AirlockError as error:  # of this lease alone: the others must not wait for it
            log.error("cannot assign %s/%s: %s", *attempt, error)

    async def _live(self, connection: AsyncConnection) -> list[str]:
        return await rows.ascalars(connection, _SQL.live_task_runs, agent=self.process.agent)

    async def send(self) -> None:
        """Send what waits in the outbox."""
        process = self.process
        while await process.transact(lambda c: outbox.send_unsent(c, process.streams, process.agent)):
            pass

    async def tidy(self) -> None:
        """Fill streams again that the server lost, and delete those of ended attempts."""
        process = self.process
        live = set(await process.transact(self._live))
        server_run = await process.streams.server_run()
        # Another run of the server (or ours) may have lost the last second of what it had acknowledged: all of it goes out once more.
        lost = sorted(live) if server_run != self._server_run else await process.streams.without_inbox(sorted(live))
        if lost:
            await process.transact(lambda c: outbox.send_again(c, lost))
            process.wake.outbox.set()
        self._server_run = server_run
        others = sorted(await process.streams.task_runs() - live)
        over = await process.transact(lambda c: rows.ascalars(c, _SQL.over_among, agent=process.agent, task_runs=others))
        await process.streams.delete(over)
