"""Time as a port: everything that waits or asks what time it is goes through a `Clock`."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock", "Timer", "within"]

T = TypeVar("T")


class Timer(Protocol):
    """A callback that has been scheduled."""

    def cancel(self) -> None:
        """Never call it. Safe to repeat, and after it has run."""
        ...


class Clock(Protocol):
    """What time it is, and how to wait. Usable from several threads; timers belong to the loop that asked for them."""

    def now(self) -> datetime:
        """The wall clock as an aware UTC datetime. It may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back. For measuring intervals."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call *callback* on the running event loop once *seconds* have passed."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after *seconds* (at once, but after one loop turn, if that is not positive)."""
        ...


@final
class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()


async def within(clock: Clock, seconds: float | None, awaitable: Awaitable[T]) -> T:
    """The result of *awaitable*, if it comes within *seconds* of *clock* (None: whenever it comes).

    Raises:
        TimeoutError: it did not; it was cancelled then.
    """
    if seconds is None:
        return await awaitable
    waiter = asyncio.ensure_future(awaitable)
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = not waiter.done()
        waiter.cancel()

    timer = clock.call_later(seconds, expire)
    try:
        return await waiter
    except asyncio.CancelledError:
        if expired:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()
