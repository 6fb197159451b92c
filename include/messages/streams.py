"""The streams between brokers and relays (Valkey, or Redis >= 7): transport at least once, never the truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from include import lazy
from include.messages.models import MAX_BODY_BYTES

with lazy.without("opentelemetry"):  # its metrics are not used, and are half of what it loads
    import redis.asyncio as redis
    from redis.exceptions import RedisError as StreamsDown
    from redis.exceptions import ResponseError
    from redis.utils import HIREDIS_AVAILABLE

GROUP = "broker"
DEAD_LETTERS_KEPT = 1_000
DEAD_LETTERS_S = 24 * 3600

__all__ = ["Entry", "Streams", "StreamsDown"]


class Entry(NamedTuple):
    """One entry of an out stream; nothing in it has been checked."""

    task_run: str
    stream_id: str
    body: bytes
    signature: str


def out_stream(task_run: str) -> str:
    """Name the stream from a task run's worker to the broker."""
    return f"task:{task_run}:out"


def in_stream(task_run: str) -> str:
    """Name the stream from the broker to a task run's worker."""
    return f"task:{task_run}:in"


class Streams:
    """A connection to the stream server.

    Args:
        url: with user and password.
        consumer: this process's name in the consumer groups.
    """

    def __init__(self, url: str, consumer: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=5)
        self._consumer = consumer
        self._grouped: set[str] = set()

    @staticmethod
    def reads_fast() -> bool:
        """Check that the client's fast reader (hiredis) is active; without it a broker takes about a third as many messages."""
        return bool(HIREDIS_AVAILABLE)

    async def server_run(self) -> str:
        """Ask for the name of this run of the server: another one after each start."""
        info: dict[str, Any] = await self._redis.info("server")
        return str(info["run_id"])

    async def ping(self) -> None:
        """Ask whether the server answers.

        Raises:
            StreamsDown: it does not.
        """
        await self._redis.ping()

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()

    async def append(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """Append (task run, body, signature) to the in streams, in order."""
        pipeline = self._redis.pipeline(transaction=False)
        for task_run, body, signature in messages:
            pipeline.xadd(in_stream(task_run), {"e": body, "s": signature})
        await pipeline.execute()

    async def read(self, task_runs: Iterable[str], count: int, block_ms: int) -> list[Entry]:
        """Read new entries of these task runs' out streams: at most ``count`` a stream, after at most ``block_ms``."""
        names = sorted(task_runs)
        await self._make_groups(names)
        try:
            reply = await self._redis.xreadgroup(
                GROUP, self._consumer, {out_stream(name): ">" for name in names}, count=count, block=block_ms
            )
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._grouped.clear()  # the streams were wiped: make the groups again at the next read
            return []
        return _entries(reply)

    async def claim(self, task_runs: Iterable[str], count: int, idle_ms: int) -> list[Entry]:
        """Take over entries that a consumer did not acknowledge for ``idle_ms``, at most ``count`` a stream: it is dead, or they wait."""
        names = sorted(task_runs)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.xautoclaim(out_stream(name), GROUP, self._consumer, idle_ms, "0-0", count=count)
        replies = await pipeline.execute(raise_on_error=False)
        found: list[Entry] = []
        for name, reply in zip(names, replies, strict=True):
            if isinstance(reply, ResponseError):
                self._grouped.discard(name)
            elif isinstance(reply, Exception):
                raise reply
            else:
                found += [_entry(name, stream_id, fields) for stream_id, fields in reply[1] if fields]
        return found

    async def acknowledge(self, entries: Iterable[Entry]) -> None:
        """Tell the server that the database has these entries."""
        ids: dict[str, list[str]] = {}
        for entry in entries:
            ids.setdefault(entry.task_run, []).append(entry.stream_id)
        pipeline = self._redis.pipeline(transaction=False)
        for task_run, stream_ids in ids.items():
            pipeline.xack(out_stream(task_run), GROUP, *stream_ids)
        await pipeline.execute(raise_on_error=False)

    async def bury(self, refused: Iterable[tuple[Entry, str]]) -> None:
        """Put refused entries with the reason into their task run's dead letters, kept for a day."""
        pipeline = self._redis.pipeline(transaction=False)
        for entry, reason in refused:
            name = f"dead:{entry.task_run}"
            fields: dict[Any, Any] = {"e": entry.body[:MAX_BODY_BYTES], "s": entry.signature[:200], "reason": reason, "id": entry.stream_id}
            pipeline.xadd(name, fields, maxlen=DEAD_LETTERS_KEPT)
            pipeline.expire(name, DEAD_LETTERS_S)
        await pipeline.execute()

    async def without_inbox(self, task_runs: Iterable[str]) -> list[str]:
        """Ask which of these task runs have no in stream (a wiped server has none)."""
        names = list(task_runs)
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.exists(in_stream(name))
        return [name for name, there in zip(names, await pipeline.execute(), strict=True) if not there]

    async def delete(self, task_runs: Iterable[str], *, inbox_only: bool = False) -> None:
        """Delete the streams of task runs whose attempt is over (dead letters stay their day)."""
        for name in task_runs:
            names = [in_stream(name)] if inbox_only else [in_stream(name), out_stream(name)]
            await self._redis.delete(*names)
            self._grouped.discard(name) if not inbox_only else None

    async def task_runs(self) -> set[str]:
        """Ask which task runs have a stream on the server."""
        return {_text(key).split(":")[1] async for key in self._redis.scan_iter("task:*", count=500)}

    async def _make_groups(self, names: list[str]) -> None:
        missing = [name for name in names if name not in self._grouped]
        if not missing:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for name in missing:
            pipeline.xgroup_create(out_stream(name), GROUP, id="0", mkstream=True)
        for name, reply in zip(missing, await pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):
                raise reply
            self._grouped.add(name)


def _entries(reply: Any) -> list[Entry]:
    if not reply:
        return []
    pairs = reply.items() if isinstance(reply, dict) else reply
    found = []
    for stream, entries in pairs:
        name = _text(stream).split(":")[1]
        batches = entries if not entries or (isinstance(entries[0], (tuple, list)) and len(entries[0]) == 2) else entries[0]
        found += [_entry(name, stream_id, fields) for stream_id, fields in batches if fields]
    return found


def _entry(task_run: str, stream_id: Any, fields: dict[bytes, bytes]) -> Entry:
    return Entry(task_run, _text(stream_id), fields.get(b"e", b""), fields.get(b"s", b"").decode("ascii", "replace"))


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
