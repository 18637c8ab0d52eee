"""What the suites of everything that keeps things have in common: a clock, time that passes, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from chicory.clock import Clock
from chicory.testing.clock import FakeClock

__all__ = ["PassTime", "StoreSuite"]

PassTime = Callable[[float], Awaitable[None]]


class StoreSuite:
    """Fixtures of `BrokerSuite`, `BackendSuite` and `JoinedSuite`."""

    @pytest.fixture
    def clock(self) -> Clock:
        """The clock that brokers and backends are made with, unless they have one of their own."""
        return FakeClock()

    @pytest.fixture
    def lease(self) -> float:
        """Seconds of a lease."""
        return 30.0

    @pytest.fixture
    def pass_time(self, clock: Clock) -> PassTime:
        """Lets seconds pass for the store."""
        return clock.advance if isinstance(clock, FakeClock) else asyncio.sleep

    @pytest_asyncio.fixture
    async def opened(self) -> AsyncIterator[AsyncExitStack]:
        """Closes what a test has opened."""
        async with AsyncExitStack() as stack:
            yield stack
