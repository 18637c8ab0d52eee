"""The SQLite backend: results in a file, joined with the broker where both are one file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, final

from chicory.errors import BackendConnectionError, BrokerConnectionError, BrokerFullError
from chicory_sqlite.broker import SqliteBroker
from chicory_sqlite.sharing import acquire, release

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

    from chicory.plugin import Broker, Delivery, Envelope, ResultRecord, Settled, Settlement, WorkerStats
    from chicory_sqlite.engine import Engine
    from chicory_sqlite.tables import File

__all__ = ["SqliteBackend", "SqliteJoined"]


@contextmanager
def _as_backend() -> Iterator[None]:
    """One engine serves both; its errors name the part that was asked."""
    try:
        yield
    except (BrokerConnectionError, BrokerFullError) as error:
        raise BackendConnectionError(error.address, error.problem) from error


@final
class SqliteBackend:
    """Keeps records and heartbeats in one file."""

    def __init__(self, file: File) -> None:
        self.file = file
        self._engine: Engine | None = None

    def __repr__(self) -> str:
        return f"<SqliteBackend {self.file.path}>"

    @property
    def address(self) -> str:
        return self.file.address

    @property
    def engine(self) -> Engine:
        """The opened engine: between ``__aenter__`` and ``__aexit__``."""
        assert self._engine is not None, "the backend is used inside of `async with`"  # noqa: S101
        return self._engine

    async def __aenter__(self) -> Self:
        with _as_backend():
            self._engine = await acquire(self.file)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await release(self.engine)

    async def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        with _as_backend():
            return await self.engine.submit(lambda t: t.records.store(records))

    async def fetch(self, ids: Sequence[str]) -> list[ResultRecord | None]:
        with _as_backend():
            found = await self.engine.submit(lambda t: t.records.fetch(ids), is_write=False)
        by_id = {record.id: record for record in found}
        return [by_id.get(task_id) for task_id in ids]

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        with _as_backend():
            return await self.engine.wait(task_id, exists=exists)

    async def delete(self, ids: Sequence[str]) -> int:
        with _as_backend():
            return await self.engine.submit(lambda t: t.records.delete(ids))

    async def beat(self, stats: WorkerStats, ttl: float) -> None:
        with _as_backend():
            await self.engine.submit(lambda t: t.records.beat(stats, ttl))

    async def heartbeats(self) -> list[tuple[WorkerStats, bool]]:
        with _as_backend():
            return await self.engine.submit(lambda t: t.records.heartbeats(), is_write=False)

    async def drop_workers(self, worker_ids: Sequence[str]) -> int:
        with _as_backend():
            return await self.engine.submit(lambda t: t.records.drop_workers(worker_ids))

    async def held(self) -> Mapping[str, Sequence[ResultRecord]]:
        with _as_backend():
            return await self.engine.submit(lambda t: t.records.held(), is_write=False)

    async def health(self) -> None:
        with _as_backend():
            await self.engine.submit(lambda t: t.records.heartbeats(), is_write=False)

    def join(self, broker: Broker) -> SqliteJoined | None:
        if isinstance(broker, SqliteBroker) and broker.file.path == self.file.path:
            return SqliteJoined(broker)
        return None

    def twin(self) -> SqliteBackend:
        return SqliteBackend(self.file)


@final
class SqliteJoined:
    """Broker and backend in one file: message and record are one row, so each of these is one transaction."""

    tracks_pending = True

    def __init__(self, broker: SqliteBroker) -> None:
        self._broker = broker

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self._broker.engine.submit(lambda t: t.messages.publish(envelopes, pending=True))

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        consumer = self._broker.consumer
        return await self._broker.engine.submit(lambda t: t.messages.settle(settlements, consumer, joined=True))

    async def finished(self, deliveries: Sequence[Delivery]) -> frozenset[str]:
        return frozenset()
