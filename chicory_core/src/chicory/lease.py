"""Keeps the leases of running deliveries, from a thread with its own event loop.

So a blocked task loop does not lose them. Code that holds the GIL without pause silences this thread too; then the leases
run out, as they should.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from chicory.backoff import Backoff
from chicory.errors import BrokerError
from chicory.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from chicory.broker import Broker
    from chicory.clock import Clock
    from chicory.message import Delivery

__all__ = ["LeaseKeeper"]

RENEWALS = 3
"""A lease is renewed after each third of it."""
FENCE = 6
"""A lease counts as lost the sixth part of it before its end: time for a cancelled task to stop."""
_BATCH = 1000


class _Held:
    """One delivery whose lease is kept. Mutable: it is written by the lease thread and read by the task loop."""

    __slots__ = ("delivery", "ends")

    def __init__(self, delivery: Delivery) -> None:
        self.delivery = delivery
        self.confirm(delivery.received_at)

    def confirm(self, since: float) -> None:
        self.ends = since + self.delivery.lease_seconds * (1 - 1 / FENCE)


@final
class LeaseKeeper:
    """Which deliveries are ours, and until when.

    `hold`, `release` and `is_ours` are called on the task loop and cost a dictionary look-up; `keep` runs on the lease thread
    with a twin of the broker. *on_lost* is called on the lease thread, once for each delivery whose lease could not be kept.
    """

    def __init__(self, clock: Clock, rng: Random, on_lost: Callable[[Delivery], object]) -> None:
        self._clock, self._rng = clock, rng
        self._on_lost = on_lost
        self._held: dict[str, _Held] = {}
        self._shortest = 30.0
        self._started = asyncio.Event()
        self.is_answered = True
        """Whether the broker answered the last renewal."""
        self._log = get_logger("lease")

    def hold(self, delivery: Delivery) -> None:
        """Keep this delivery's lease from now on."""
        self._held[delivery.receipt] = _Held(delivery)

    def release(self, receipt: str) -> bool:
        """It is settled, or given up: keep it no longer. Whether it was kept; safe to repeat."""
        return self._held.pop(receipt, None) is not None

    def is_ours(self, receipt: str) -> bool:
        """Whether the lease is held, and confirmed far enough into the future to act on it."""
        held = self._held.get(receipt)
        return held is not None and self._clock.monotonic() < held.ends

    def give_up(self) -> None:
        """Keep none of them any longer, and act on none: this process is about to end."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)

    def lease_is(self, seconds: float) -> None:
        """The shortest lease of the queues that are read, in seconds: it sets the pace."""
        self._shortest = seconds

    async def keep(self, twin: Callable[[], Broker]) -> None:
        """Renew and fence until cancelled; *twin* makes the unopened broker that this loop is to use."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_for_ever(twin), name="lease-renewal")
            group.create_task(self._fence_for_ever(), name="lease-fence")

    async def started(self) -> None:
        """Return once `keep` has tried to renew for the first time; on the same loop as that."""
        await self._started.wait()

    async def _renew_for_ever(self, twin: Callable[[], Broker]) -> None:
        backoff = Backoff(self._clock, self._rng, first=self._shortest / 60, longest=self._shortest / 12)
        while True:
            try:
                async with twin() as broker:
                    while True:
                        await self._renew(broker, list(self._held))
                        backoff.reset()
                        self.is_answered = True
                        self._started.set()
                        await self._clock.sleep(self._shortest / RENEWALS)
            except BrokerError as error:
                self.is_answered = False
                if backoff.tries == 0:
                    self._log.warning("lease_renewal_failed", error_type=type(error).__qualname__, held=len(self._held))
                self._started.set()
                await backoff.pause()

    async def _renew(self, broker: Broker, receipts: Sequence[str]) -> None:
        for start in range(0, max(len(receipts), 1), _BATCH):  # without any too: that is how the broker knows that we live
            batch = receipts[start : start + _BATCH]
            asked_at = self._clock.monotonic()  # before the call: the answer may be late
            lost = await broker.extend(batch)
            for receipt in batch:
                if receipt in lost:
                    self._lose(receipt)
                elif (held := self._held.get(receipt)) is not None:
                    held.confirm(asked_at)

    async def _fence_for_ever(self) -> None:
        while True:
            await self._clock.sleep(self._shortest / (2 * FENCE))
            now = self._clock.monotonic()
            for receipt, held in list(self._held.items()):
                if now >= held.ends:
                    self._lose(receipt)

    def _lose(self, receipt: str) -> None:
        if (held := self._held.pop(receipt, None)) is not None:
            self._on_lost(held.delivery)
