"""What arrives while a round trip is under way travels together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Generic, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Batcher"]

T = TypeVar("T")
R = TypeVar("R")


@final
class Batcher(Generic[T, R]):
    """Groups single requests into round trips, without timers: one request waits for nobody, a thousand cost a few.

    *flush* gets one to *limit* items, in the order they came, and answers each of them in that order. One flush runs at a
    time. If it raises, every request of that batch raises the same error, and the next batch goes out as usual.
    Belongs to the event loop on which it was first used.
    """

    def __init__(self, flush: Callable[[list[T]], Awaitable[Sequence[R]]], *, limit: int) -> None:
        self._flush = flush
        self._limit = limit
        self._waiting: deque[tuple[T, asyncio.Future[R] | None]] = deque()
        self._flusher: asyncio.Task[None] | None = None
        self._nudged = False

    @property
    def is_busy(self) -> bool:
        """A flush is under way, or about to be."""
        return self._flusher is not None

    def nudge(self) -> None:
        """Have one flush even if nothing was added: *flush* may then get an empty list."""
        self._nudged = True
        self._ensure_flusher()

    def add(self, item: T) -> asyncio.Future[R]:
        """Put *item* into the next round trip; the future is its answer. Cancelling it does not call the item back."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        self._ensure_flusher()
        return answer

    def put(self, item: T) -> None:
        """As `add`, for items whose answer nobody waits for; *flush* must not raise then, for nobody would hear of it."""
        self._waiting.append((item, None))
        self._ensure_flusher()

    def abort(self) -> None:
        """Cancel the flush under way and everyone who waits."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher.add_done_callback(self._forget)  # one that never began to run clears nothing up itself

    async def drain(self) -> None:
        """Return when everything added so far has been answered. Errors go to those who asked, not here."""
        while self._flusher is not None:
            await asyncio.wait([self._flusher])

    def _ensure_flusher(self) -> None:
        if self._flusher is None:
            # The flusher first runs in the next loop turn: what this turn still adds goes along.
            # Its context is empty: a batch belongs to none of those who wait for it.
            self._flusher = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def _run(self) -> None:
        try:
            while self._waiting or self._nudged:
                self._nudged = False
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limit))]
                await self._send(batch)
        finally:
            self._clear()

    def _forget(self, flusher: asyncio.Task[None]) -> None:
        if self._flusher is flusher:
            self._clear()

    def _clear(self) -> None:
        self._flusher = None
        for _, answer in self._waiting:  # only when the flusher itself was cancelled
            if answer is not None:
                answer.cancel()
        self._waiting.clear()

    async def _send(self, batch: list[tuple[T, asyncio.Future[R] | None]]) -> None:
        waited_for = [answer for _, answer in batch if answer is not None]
        try:
            answers = await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            for answer in waited_for:
                answer.cancel()
            raise
        except Exception as error:
            for answer in waited_for:
                if not answer.done():
                    answer.set_exception(error)
                    answer.exception()  # retrieved: a caller that went away does not make asyncio complain
            if len(waited_for) < len(batch):
                raise
            return
        if not waited_for:
            return
        for (_, waiter), value in zip(batch, answers, strict=True):
            if waiter is not None and not waiter.done():
                waiter.set_result(value)
