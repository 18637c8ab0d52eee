"""The SQLite broker: many processes on one host, one file, no server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self, final

from chicory.plugin import Capabilities, QueuePage
from chicory_sqlite.messages import DEDUP_WINDOW
from chicory_sqlite.sharing import acquire, release

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from chicory.plugin import Delivery, Envelope, QueuedMessage, QueueStats, Settled, Settlement
    from chicory_sqlite.engine import Engine
    from chicory_sqlite.tables import File

__all__ = ["SqliteBroker"]


@final
class SqliteBroker:
    """Moves messages through one file. Accepted means: synced to the disk (with ``durability="normal"``: written).

    All brokers and backends of one process on one file share a connection and a thread, and commit together.
    """

    capabilities = Capabilities(
        delayed=True,
        priorities=10,
        dedup_window=DEDUP_WINDOW,
        atomic_publish=True,
        fenced=True,
        browse=True,
        persistent=True,
    )

    def __init__(self, file: File, consumer: str | None = None) -> None:
        self.file = file
        self.consumer = consumer or os.urandom(6).hex()
        self._engine: Engine | None = None
        self._is_announced = False

    def __repr__(self) -> str:
        return f"<SqliteBroker {self.file.path}>"

    @property
    def address(self) -> str:
        return self.file.address

    @property
    def engine(self) -> Engine:
        """The opened engine: between ``__aenter__`` and ``__aexit__``."""
        assert self._engine is not None, "the broker is used inside of `async with`"  # noqa: S101
        return self._engine

    async def __aenter__(self) -> Self:
        self._engine = await acquire(self.file)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._is_announced:
                self._is_announced = False
                await self.engine.submit(lambda t: t.messages.leave(self.consumer))
        finally:
            await release(self.engine)

    async def prepare(self, queues: Sequence[str], lease_seconds: float) -> Mapping[str, float]:
        self._is_announced = True
        return await self.engine.submit(lambda t: t.messages.prepare(queues, lease_seconds, self.consumer))

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self.engine.submit(lambda t: t.messages.publish(envelopes, pending=False))

    async def receive(self, queues: Sequence[str], limit: int, wait: float) -> list[Delivery]:
        return await self.engine.receive(queues, limit, self.consumer, wait)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return await self.engine.submit(lambda t: t.messages.settle(settlements, self.consumer, joined=False))

    async def extend(self, receipts: Sequence[str]) -> set[str]:
        return await self.engine.submit(lambda t: t.messages.extend(receipts, self.consumer))

    async def stats(self, queue: str) -> QueueStats:
        return await self.engine.submit(lambda t: t.messages.stats(queue))

    async def purge(self, queue: str) -> int:
        return await self.engine.submit(lambda t: t.messages.purge(queue))

    async def cleanup(self, queue: str, stale_seconds: float) -> int:
        return await self.engine.submit(lambda t: t.messages.cleanup(queue, stale_seconds))

    async def health(self) -> None:
        await self.engine.submit(lambda t: t.messages.look(["default"]), is_write=False)

    def twin(self) -> SqliteBroker:
        return SqliteBroker(self.file, self.consumer)

    # --- browsing ------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        return await self.engine.submit(lambda t: t.messages.queues(), is_write=False)

    async def list_messages(self, queue: str, *, limit: int, after: str | None = None) -> QueuePage:
        messages, cursor = await self.engine.submit(lambda t: t.shelf.list_messages(queue, limit, after), is_write=False)
        return QueuePage(messages=messages, cursor=cursor)

    async def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        return await self.engine.submit(lambda t: t.shelf.get_messages(queue, ids), is_write=False)

    async def delete_messages(self, queue: str, ids: Sequence[str]) -> int:
        return len(await self.engine.submit(lambda t: t.shelf.delete_messages(queue, ids)))

    async def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        return await self.engine.submit(lambda t: t.shelf.move(queue, replacements))
