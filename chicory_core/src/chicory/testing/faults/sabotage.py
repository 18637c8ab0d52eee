"""Guarantees taken away, for negative controls: a proof that cannot fail proves nothing. And a clock that is wrong.

Each function changes the process that it is called in, and nothing gives the guarantee back: call it in a worker of the
workload only, through ``FAULTS_SABOTAGE``.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from chicory.clock import SystemClock
from chicory.lease import LeaseKeeper
from chicory.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from chicory.broker import Broker
    from chicory.message import Settled, Settlement

__all__ = ["clock_ahead", "renewal_off", "settle_in_two_steps", "worker_fence_off"]

_BETWEEN = 0.02
"""Seconds between the two steps: room for a kill."""


def renewal_off() -> None:
    """Leases are never renewed, and the worker does not notice when they have ended."""

    async def keep(self: LeaseKeeper, twin: Callable[[], Broker]) -> None:  # noqa: ARG001
        self._started.set()
        await asyncio.get_running_loop().create_future()

    LeaseKeeper.keep = keep  # type: ignore[method-assign]
    worker_fence_off()


def worker_fence_off() -> None:
    """A worker takes each lease for its own until it has settled, however long it stood still."""

    def is_ours(self: LeaseKeeper, receipt: str) -> bool:  # noqa: ARG001 - the signature of what it replaces
        return True

    def lose(self: LeaseKeeper, receipt: str) -> None:
        """Nobody hears of it."""

    LeaseKeeper.is_ours = is_ours  # type: ignore[method-assign]
    LeaseKeeper._lose = lose  # type: ignore[method-assign]  # noqa: SLF001 - the part that is taken away


def settle_in_two_steps() -> None:
    """The message goes first; what follows it, and its result, come after."""
    whole = Outbox._send  # noqa: SLF001 - likewise

    async def send(self: Outbox, batch: Sequence[Settlement]) -> list[Settled]:
        joined: Any = self._joined
        ends = [settlement for settlement in batch if settlement.ends]
        if not ends:
            return await whole(self, batch)
        answers = await whole(self, [replace(s, publish=(), result=None) if s.ends else s for s in batch])
        await asyncio.sleep(_BETWEEN)
        await joined.publish([envelope for settlement in ends for envelope in settlement.publish])
        if self._backend is not None:
            await self._backend.store([s.result for s in ends if s.result is not None])
        return answers

    Outbox._send = send  # type: ignore[method-assign]  # noqa: SLF001


def clock_ahead() -> None:
    """The clock of this process is ten minutes ahead; no guarantee is taken away by that."""
    now = SystemClock.now

    def ahead(self: SystemClock) -> datetime:
        return now(self) + timedelta(minutes=10)

    SystemClock.now = ahead  # type: ignore[method-assign]
