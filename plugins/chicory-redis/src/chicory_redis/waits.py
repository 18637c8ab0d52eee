"""Waiting for ends of tasks: one connection that listens for all waits of an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, final

from chicory.errors import BackendConnectionError
from chicory_redis.rows import record_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio.client import PubSub

    from chicory.plugin import ResultRecord
    from chicory_redis.server import Server

__all__ = ["Waits"]

_LOOK = 2.0
"""Seconds after which ids are looked up anew, should a message have been missed."""
_LOOK_AT_MOST = 500
_NOBODY = "-"
"""Subscribed to all the time: without any channel there is nothing to listen to."""


@final
class _Wait:
    def __init__(self, *, exists: bool) -> None:
        self.exists = exists
        self.answer: asyncio.Future[ResultRecord | None] = asyncio.get_running_loop().create_future()


@final
class Waits:
    """Who waits for which id. New ids of one moment are subscribed together, and looked up once the server has confirmed.

    So an end is either in the record that is looked up, or in a message that comes after.
    """

    def __init__(
        self, server: Server, channel: str, fetch: Callable[[Sequence[str]], Awaitable[list[ResultRecord | None]]]
    ) -> None:
        self._server, self._channel, self._fetch = server, channel, fetch
        self._waits: dict[str, list[_Wait]] = defaultdict(list)
        self._subscribed: set[str] = set()
        self._ripe: set[str] = set()
        self._has_news = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        """The record once it is terminal; None once it is gone (at once, if there is none and *exists* says so)."""
        wait = _Wait(exists=exists)
        self._waits[task_id].append(wait)
        if task_id in self._subscribed:
            self._ripe.add(task_id)
        self._has_news.set()
        if self._worker is None:
            self._worker = asyncio.create_task(self._serve(), name="redis-waits")
        try:
            return await wait.answer
        finally:
            self._drop(task_id, wait)

    async def close(self) -> None:
        """End: whoever still waits is told that nothing will come."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._fail(BackendConnectionError(self._server.place.address, "it was closed while somebody waited"))

    def _drop(self, task_id: str, wait: _Wait) -> None:
        waits = self._waits.get(task_id, [])
        if wait in waits:
            waits.remove(wait)
        if not waits:
            self._waits.pop(task_id, None)

    # --- the task that serves them ---------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            async with self._server.blocking.pubsub() as pubsub, asyncio.TaskGroup() as group:
                with self._server.translated():
                    await pubsub.subscribe(self._channel + _NOBODY)
                group.create_task(self._listen(pubsub))
                while True:
                    self._has_news.clear()
                    await self._agree(pubsub)
                    await self._look()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK if self._waits else None):
                            await self._has_news.wait()
                    if not self._has_news.is_set():
                        self._ripe.update(list(self._waits)[:_LOOK_AT_MOST])
        except BaseExceptionGroup as group:
            self._fail(group.exceptions[0])
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, translated
            self._fail(error)

    async def _agree(self, pubsub: PubSub) -> None:
        """Subscribe to what is waited for, and to nothing else."""
        missing, over = self._waits.keys() - self._subscribed, self._subscribed - self._waits.keys()
        self._subscribed = set(self._waits)
        with self._server.translated():
            if missing:
                await pubsub.subscribe(*(self._channel + task_id for task_id in missing))
            if over:
                await pubsub.unsubscribe(*(self._channel + task_id for task_id in over))

    async def _look(self) -> None:
        ids = [task_id for task_id in self._ripe if task_id in self._waits]
        self._ripe.clear()
        for task_id, record in zip(ids, await self._fetch(ids), strict=True):
            self._tell(task_id, record)

    async def _listen(self, pubsub: PubSub) -> None:
        with self._server.translated():
            async for message in pubsub.listen():
                self._hear(message)

    def _hear(self, message: Any) -> None:
        task_id = message["channel"].decode().removeprefix(self._channel)
        if message["type"] == "message" and message["data"]:
            self._tell(task_id, record_of(task_id, message["data"]))
        elif message["type"] in ("message", "subscribe") and task_id in self._waits:
            self._ripe.add(task_id)
            self._has_news.set()

    def _tell(self, task_id: str, record: ResultRecord | None) -> None:
        for wait in list(self._waits.get(task_id, ())):
            if record is None and not wait.exists:
                continue
            wait.exists = True
            if (record is None or record.state.is_terminal) and not wait.answer.done():
                wait.answer.set_result(record)
                self._drop(task_id, wait)

    def _fail(self, error: BaseException) -> None:
        self._worker = None
        self._subscribed, self._ripe = set(), set()
        waiting, self._waits = self._waits, defaultdict(list)
        for wait in (wait for waits in waiting.values() for wait in waits):
            if not wait.answer.done():
                wait.answer.set_exception(error)
