"""Waiting for ends of tasks: the server tells each change of a record, once it is stored, to whoever listens for its id."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from chicory.errors import BackendConnectionError
from chicory_nats.names import token
from chicory_nats.records import read

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

    from chicory.plugin import ResultRecord
    from chicory_nats.records import Records
    from chicory_nats.server import Server
    from chicory_nats.wire import Wire

__all__ = ["Waits"]

_LOOK = 2.0
"""Seconds after which an id is looked up anew, should a change have been missed."""
_LOOKS = 250
"""Look-ups in a second, at most: where many wait, each looks less often."""


@final
class _Topic:
    """One id that is waited for, by one or many."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.wire: Wire | None = None
        self.subscription: Subscription | None = None
        self.waiters: set[asyncio.Future[ResultRecord | None]] = set()
        self.listening = asyncio.Lock()

    def hear(self, _subject: str, _reply: str, headers: bytes, body: bytes) -> None:
        record = read(self.task_id, headers, body, 0.0)
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(record)


@final
class Waits:
    """Who waits for which id. The id is listened for first, and then looked up: its end is either there, or comes after."""

    def __init__(self, server: Server, dest: str, records: Records) -> None:
        self._server, self._dest, self._records = server, dest, records
        self._topics: dict[str, _Topic] = {}
        self._is_closed = False
        server.on_loss.append(self._wake)

    def _wake(self) -> None:
        """The connection is lost: what was told meanwhile must be looked up."""
        for topic in self._topics.values():
            for waiter in topic.waiters:
                waiter.cancel()

    async def close(self) -> None:
        """End: whoever still waits is told that nothing will come."""
        self._is_closed = True
        self._wake()

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        """The record once it is terminal; None once it is gone (at once, if there is none and *exists* says so)."""
        topic = self._topics.setdefault(task_id, _Topic(task_id))
        waiter: asyncio.Future[ResultRecord | None] = asyncio.get_running_loop().create_future()
        topic.waiters.add(waiter)
        try:
            while True:
                await self._listen(topic)
                ((head),) = await self._records.heads([task_id])
                record = head.record
                while True:
                    if record is not None and record.state.is_terminal:
                        return record
                    if record is None and exists:
                        return None
                    exists = exists or record is not None
                    is_told, record = await self._told(topic, waiter)
                    topic.waiters.discard(waiter)
                    waiter = asyncio.get_running_loop().create_future()
                    topic.waiters.add(waiter)
                    if not is_told:
                        break
        finally:
            topic.waiters.discard(waiter)
            await self._drop(topic)

    async def _told(self, topic: _Topic, waiter: asyncio.Future[ResultRecord | None]) -> tuple[bool, ResultRecord | None]:
        """What the next change says; or that there was none for a while, or that some may have been missed."""
        await asyncio.wait([waiter], timeout=max(_LOOK, len(self._topics) / _LOOKS))
        if self._is_closed:
            raise BackendConnectionError(self._server.place.address, "it was closed while somebody waited")
        if not waiter.done() or waiter.cancelled():
            return False, None
        return True, waiter.result()

    async def _listen(self, topic: _Topic) -> None:
        async with topic.listening:
            wire = await self._server.wire()
            if topic.wire is not wire:
                topic.wire = wire
                topic.subscription = await wire.listen(f"{self._dest}.r.{token(topic.task_id)}", topic.hear)

    async def _drop(self, topic: _Topic) -> None:
        if topic.waiters or self._topics.get(topic.task_id) is not topic:
            return
        del self._topics[topic.task_id]
        if topic.wire is not None and topic.subscription is not None:
            await topic.wire.stop(topic.subscription)
