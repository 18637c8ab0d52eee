"""Taking messages: asked for without waiting, level by level; and waited for, a slice of a lease at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, final

from chicory.plugin import Delivery
from chicory_nats.box import Box
from chicory_nats.leases import delivery_count, stored_at, stream_sequence
from chicory_nats.names import TOP, envelope_of
from chicory_nats.server import Missing
from chicory_nats.wire import ConnectionLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chicory_nats.box import Message
    from chicory_nats.consumers import Durables
    from chicory_nats.leases import Leases
    from chicory_nats.names import Names
    from chicory_nats.server import Server

__all__ = ["DEFAULT_LEASE", "Pulls"]

DEFAULT_LEASE = 30.0
"""Seconds: of queues that nobody has announced."""
_LOOK = 1.0
"""Seconds after which a consumer that waits looks for messages of levels that it has not seen yet."""
_AGAIN, _AGAIN_PAUSE = 3, 0.01
_PATIENCE = 8
"""The part of a lease for which one request waits: if this process is stopped meanwhile, a lease counts from its begin."""
_TAKEN_AWAY = 500
_BILLION = 1_000_000_000
_GONE = frozenset({409, 503})
"""The consumer was deleted, or there is none."""


@final
class Pulls:
    """One opened broker's ways to its messages. What comes when nobody waits any more is kept for whoever asks next."""

    def __init__(self, server: Server, names: Names, durables: Durables, leases: Leases, announced: dict[str, float]) -> None:
        self._server, self._names, self._durables, self._leases = server, names, durables, leases
        self._announced = announced
        self._levels: dict[str, dict[int, float]] = {}
        """The consumers that are there, with their leases, by queue and level."""
        self._looked_at = float("-inf")
        self._ahead: deque[Delivery] = deque()
        self._boxes: list[Box] = []
        """Those that nothing is on its way to."""
        self._closing: set[asyncio.Task[None]] = set()
        server.on_loss.append(self._lose)
        durables.on_new.append(self.forget)

    # --- consumers ---------------------------------------------------------------------------------

    def _lose(self) -> None:
        """The connection is lost: consumers may be others when it is back."""
        self.forget()
        self._boxes.clear()

    def forget(self) -> None:
        """The server may have other consumers now than it had."""
        self._levels.clear()
        self._looked_at = float("-inf")

    async def ensure(self, queue: str, level: int) -> None:
        """Make the consumer of a level unless it is known to be there."""
        known = self._levels.setdefault(queue, {})
        if level in known:
            return
        lease = self._announced.get(queue)
        found = await self._durables.read(queue, level)
        there = None if found is None else found["config"]["ack_wait"] / _BILLION
        if there is None or (lease is not None and there != lease):
            there = lease if lease is not None else await self._lease_of(queue)
            await self._durables.make(queue, level, there)
        known[level] = there

    async def _lease_of(self, queue: str) -> float:
        """What the other levels of a queue go by."""
        for level in range(TOP + 1):
            found = await self._durables.read(queue, level)
            if found is not None:
                return float(found["config"]["ack_wait"]) / _BILLION
        return DEFAULT_LEASE

    async def _look(self, queues: Sequence[str]) -> bool:
        """Find the levels at which something waits or runs, and say whether any does; that of most messages is there anyway."""
        found = await self._durables.levels()
        self._looked_at = time.monotonic()
        for queue in queues:
            levels = found.get(queue, set())
            for level in levels | {0} if queue in self._announced else levels:
                await self.ensure(queue, level)
        return any(found.get(queue) for queue in queues)

    def _sources(self, queues: Sequence[str]) -> list[tuple[str, int, float]]:
        """Queues, levels and leases, in order of precedence."""
        return [
            (queue, level, lease)
            for queue in queues
            for level, lease in sorted(self._levels.get(queue, {}).items(), reverse=True)
        ]

    # --- receiving ---------------------------------------------------------------------------------

    async def receive(self, queues: Sequence[str], limit: int, wait: float) -> list[Delivery]:
        deadline = time.monotonic() + wait
        is_any = await self._look(queues)
        taken = self._kept(queues, limit)
        taken += await self._take(queues, limit - len(taken))
        if not taken and is_any and wait <= 0:
            taken = await self._take_again(queues, limit)
        while not taken and (left := deadline - time.monotonic()) > 0:
            taken = await self._await(queues, left)
            if taken and len(taken) < limit:
                taken += await self._take(queues, limit - len(taken))
            elif not taken:
                await self._look_in_time(queues)
        return self._chosen(taken, queues, limit)

    async def _look_in_time(self, queues: Sequence[str]) -> None:
        if time.monotonic() - self._looked_at >= _LOOK:
            await self._look(queues)

    def _kept(self, queues: Sequence[str], limit: int) -> list[Delivery]:
        """What came too late for those who asked, while enough of its lease is left."""
        found: list[Delivery] = []
        for _ in range(len(self._ahead)):
            delivery = self._ahead.popleft()
            if delivery.queue not in queues or len(found) >= limit:
                self._ahead.append(delivery)
            elif time.monotonic() < delivery.received_at + delivery.lease_seconds / 2:
                found.append(delivery)
        return found

    def _chosen(self, taken: list[Delivery], queues: Sequence[str], limit: int) -> list[Delivery]:
        """In order of precedence; several sources that were waited for may have brought more than *limit*."""
        place = {queue: number for number, queue in enumerate(queues)}
        taken.sort(key=lambda delivery: (place[delivery.queue], -delivery.envelope.priority))
        self._ahead.extend(taken[limit:])
        for delivery in taken[:limit]:
            self._leases.begin(delivery.receipt, delivery.received_at, delivery.lease_seconds)
        return taken[:limit]

    async def _take(self, queues: Sequence[str], limit: int) -> list[Delivery]:
        """Up to *limit* messages that are ready, from the first source that has some, then the next."""
        taken: list[Delivery] = []
        try:
            for queue, level, _ in self._sources(queues):
                if len(taken) >= limit:
                    break
                taken += await self._pull(queue, level, limit - len(taken))
        except BaseException:
            self._ahead.extend(taken)
            raise
        return taken

    async def _take_again(self, queues: Sequence[str], limit: int) -> list[Delivery]:
        """A server tells a consumer of what it has stored a moment later: who does not wait for that asks a few times more."""
        taken: list[Delivery] = []
        for _ in range(_AGAIN):
            await asyncio.sleep(_AGAIN_PAUSE)
            if taken := await self._take(queues, limit):
                break
        return taken

    async def take_away(self, queue: str, level: int) -> list[str]:
        """The receipts of messages that are ready, taken for good."""
        return [delivery.receipt for delivery in await self._pull(queue, level, _TAKEN_AWAY)]

    async def _pull(self, queue: str, level: int, limit: int) -> list[Delivery]:
        """What one source has."""
        return await self._ask([self._subject(queue, level)], limit, 0.0)

    def _subject(self, queue: str, level: int) -> str:
        return f"$JS.API.CONSUMER.MSG.NEXT.{self._names.stream}.{self._durables.reader(queue, level)}"

    async def _ask(self, subjects: Sequence[str], limit: int, seconds: float) -> list[Delivery]:
        """Up to *limit* messages from each of these, at once or within *seconds*."""
        box = self._boxes.pop() if self._boxes else await Box.open(await self._server.wire())
        at = time.monotonic()
        try:
            await box.ask(subjects, limit, seconds)
            async with asyncio.timeout(seconds + self._server.place.timeout):
                await box.something()
        except TimeoutError as error:
            self._leave(box, at)
            raise ConnectionLost(f"no answer within {seconds + self._server.place.timeout:g} s") from error
        except BaseException:
            self._leave(box, at)
            raise
        taken = [self._delivery(message, at) for message in box.messages]
        taken.sort(key=_due)
        box.messages.clear()
        if box.credit:
            self._leave(box, at)
        else:
            self._boxes.append(box)
        if not taken and box.status in _GONE:
            self.forget()
            raise Missing("a consumer")
        return taken

    def _leave(self, box: Box, at: float) -> None:
        """End what is still asked for; what was on its way is kept."""
        self._ahead.extend(self._delivery(message, at) for message in box.messages)
        box.messages.clear()
        box.abandoned = lambda message: self._ahead.append(self._delivery(message, at))
        closing = asyncio.get_running_loop().create_task(box.close(), name="nats-pull-end")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # --- waiting -----------------------------------------------------------------------------------

    async def _await(self, queues: Sequence[str], seconds: float) -> list[Delivery]:
        """The first message that comes within a slice of *seconds*, or what several sources have at once."""
        sources = self._sources(queues)
        leases = [lease for _, _, lease in sources] or [DEFAULT_LEASE]
        patience = min(seconds, _LOOK, min(leases) / _PATIENCE)
        if not sources:
            await asyncio.sleep(patience)
            return []
        return await self._ask([self._subject(queue, level) for queue, level, _ in sources], 1, patience)

    def _delivery(self, message: Message, at: float) -> Delivery:
        subject, receipt, headers, body = message
        queue, level = self._names.place_of(subject)
        lease = self._levels.get(queue, {}).get(level) or self._announced.get(queue, DEFAULT_LEASE)
        return Delivery(
            envelope=envelope_of(queue, level, stream_sequence(receipt), (headers, body)),
            receipt=receipt,
            delivery_count=delivery_count(receipt),
            lease_seconds=lease,
            received_at=at,
        )

    async def close(self) -> list[str]:
        """End; the receipts of what came and nobody got."""
        while self._closing:
            await asyncio.wait(self._closing)
        return [delivery.receipt for delivery in self._ahead]


def _due(delivery: Delivery) -> float:
    """When it became due: the server may put what becomes due in the same quarter of a second in another order."""
    due = delivery.envelope.due
    return stored_at(delivery.receipt) if due is None else due.timestamp()
