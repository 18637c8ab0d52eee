"""Time in tests: a clock that only moves when told, and waiting for what happens in real time."""

from __future__ import annotations

import asyncio
import heapq
import inspect
import itertools
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, final
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["FakeClock", "eventually"]

_TURNS = 40
"""Loop turns that are given to what a timer has set going: more than the longest chain of callbacks in chicory."""


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@final
class _FakeTimer:
    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
        self.loop, self.callback = loop, callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def fire(self) -> None:
        if not self.is_cancelled:
            self.callback()


@final
class FakeClock:
    """A `Clock` that stands still until `advance`. Works across event loops in several threads."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._numbers = itertools.count()
        self._loops: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return 1000.0 + self._elapsed

    def call_later(self, seconds: float, callback: Callable[[], object]) -> _FakeTimer:
        timer = _FakeTimer(asyncio.get_running_loop(), callback)
        if seconds <= 0:
            timer.loop.call_soon(timer.fire)
            return timer
        with self._lock:
            self._loops.add(timer.loop)
            heapq.heappush(self._timers, (self._elapsed + seconds, next(self._numbers), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, partial(_resolve, woken))
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass: every timer fires at its moment, and what it sets going runs before the next one."""
        target = self._elapsed + seconds
        await self.settle()
        while (timer := self._next(target)) is not None:
            if timer.loop is asyncio.get_running_loop():
                timer.fire()
            elif not timer.loop.is_closed():
                timer.loop.call_soon_threadsafe(timer.fire)
            await self.settle()
        self._elapsed = target
        await self.settle()

    async def settle(self) -> None:
        """Let everything run that waits for no time, on every loop that uses this clock."""
        with self._lock:
            others = [loop for loop in self._loops if loop is not asyncio.get_running_loop()]
        for loop in others:
            if loop.is_running():
                turned = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_turns(), loop))
                await asyncio.wait([turned], timeout=1)  # a loop that is being closed never answers
        await _turns()

    def _next(self, target: float) -> _FakeTimer | None:
        with self._lock:
            while self._timers and self._timers[0][0] <= target:
                due, _, timer = heapq.heappop(self._timers)
                if not timer.is_cancelled:
                    self._elapsed = max(self._elapsed, due)
                    return timer
        return None


async def _turns() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], Any | Awaitable[Any]], within: float = 5.0) -> Any:
    """The first true value of *condition* (plain or async), looked for until *within* real seconds have passed.

    Raises:
        AssertionError: it never was true; the last value is in the text.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within} s; the last value was {value!r}")
        await asyncio.sleep(0.005)
