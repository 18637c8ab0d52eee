"""The Redis backend: one key per task id, results pushed to whoever waits, heartbeats; and both stores as one."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self, final

import msgspec

from chicory.errors import BackendConnectionError
from chicory.plugin import WorkerStats
from chicory_redis.broker import RedisBroker
from chicory_redis.rows import milliseconds, record_of, record_row
from chicory_redis.server import Place, Server
from chicory_redis.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from chicory.plugin import Broker, Delivery, Envelope, Joined, ResultRecord, Settled, Settlement
    from chicory_redis.rows import Cell

__all__ = ["RedisBackend"]

_CHUNK = 500
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerStats).decode


@final
class RedisBackend:
    """Keeps records and heartbeats. Beside a `RedisBroker` on the same server, in whatever database, both are one store."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._server: Server | None = None
        self._waits: Waits | None = None

    def __repr__(self) -> str:
        return f"<RedisBackend {self.place.address}>"

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def records(self) -> str:
        """Where records are, for a script: database and prefix."""
        return f"{self.place.db} {self.place.prefix}"

    @property
    def server(self) -> Server:
        """The opened server: between ``__aenter__`` and ``__aexit__``."""
        assert self._server is not None, "the backend is used inside of `async with`"  # noqa: S101
        return self._server

    async def __aenter__(self) -> Self:
        self._server = server = await Server(self.place, BackendConnectionError, BackendConnectionError).open()
        self._waits = Waits(server, f"{self.place.prefix}:done:", self.fetch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._waits is not None:
            await self._waits.close()
        await self.server.close()

    async def _run(self, script: str, rows: Sequence[Cell]) -> Any:
        head = (self.place.prefix, "-", "-", 0, self.place.db, self.records)
        return await self.server.run(script, head, rows)

    # --- records -------------------------------------------------------------------------------

    async def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        kept: list[bool] = []
        for start in range(0, len(records), _CHUNK):
            rows = [part for record in records[start : start + _CHUNK] for part in record_row(record)]
            kept += [answer == 1 for answer in await self._run("store", rows)]
        return kept

    async def fetch(self, ids: Sequence[str]) -> list[ResultRecord | None]:
        found: list[ResultRecord | None] = []
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            values = await self.server.ask("MGET", *(f"{self.place.prefix}:r:{task_id}" for task_id in part))
            found += [record_of(task_id, value) for task_id, value in zip(part, values, strict=True)]
        return found

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        assert self._waits is not None, "the backend is used inside of `async with`"  # noqa: S101
        return await self._waits.wait(task_id, exists=exists)

    async def delete(self, ids: Sequence[str]) -> int:
        return int(await self._run("forget", ids)) if ids else 0

    async def held(self) -> Mapping[str, Sequence[ResultRecord]]:
        holders = await self.server.ask("HGETALL", f"{self.place.prefix}:held")
        by_holder: dict[str, list[ResultRecord]] = defaultdict(list)
        for record in await self.fetch([task_id.decode() for task_id in holders]):
            if record is not None and record.holder is not None and not record.state.is_terminal:
                by_holder[record.holder].append(record)
        return by_holder

    # --- workers -------------------------------------------------------------------------------

    async def beat(self, stats: WorkerStats, ttl: float) -> None:
        """The heartbeat with the moment, on the server's clock, until which it counts."""
        until = await self._now() + milliseconds(ttl)
        await self.server.ask("HSET", f"{self.place.prefix}:beats", stats.worker_id, f"{until} ".encode() + _encode(stats))

    async def heartbeats(self) -> list[tuple[WorkerStats, bool]]:
        now = await self._now()
        beats = await self.server.ask("HGETALL", f"{self.place.prefix}:beats")
        found = []
        for value in beats.values():
            until, _, text = value.partition(b" ")
            stats = _decode(text)
            found.append((stats, stats.is_running and now < int(until)))
        return sorted(found, key=lambda pair: pair[0].worker_id)

    async def drop_workers(self, worker_ids: Sequence[str]) -> int:
        if not worker_ids:
            return 0
        return int(await self.server.ask("HDEL", f"{self.place.prefix}:beats", *worker_ids))

    async def _now(self) -> int:
        seconds, micro = await self.server.ask("TIME")
        return int(seconds) * 1000 + int(micro) // 1000

    async def health(self) -> None:
        await self.server.ask("PING")

    def join(self, broker: Broker) -> Joined | None:
        if isinstance(broker, RedisBroker) and broker.place.host == self.place.host:
            return JoinedRedis(broker, self.records)
        return None

    def twin(self) -> RedisBackend:
        return RedisBackend(self.place)


@final
class JoinedRedis:
    """A broker and a backend on one server: each step is one script."""

    tracks_pending = True

    def __init__(self, broker: RedisBroker, records: str) -> None:
        self._broker, self._records = broker, records

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self._broker.publish_with(envelopes, self._records)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return await self._broker.settle_with(settlements, self._records)

    async def finished(self, _deliveries: Sequence[Delivery]) -> frozenset[str]:
        return frozenset()
