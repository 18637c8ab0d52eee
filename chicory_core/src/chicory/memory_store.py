"""The queues and records of one process, in memory: what `MemoryBroker` and `MemoryBackend` work on."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, final

from chicory.message import Delivery, Envelope, ResultRecord, Settled, Settlement, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chicory.clock import Clock
    from chicory.message import WorkerStats

__all__ = ["DEDUP_WINDOW", "SETTLED", "MemoryStore", "StoredMessage", "resolve"]

DEDUP_WINDOW = 120.0
"""Seconds for which the id of a settled message is remembered."""
DEFAULT_LEASE = 30.0
SETTLED = "settled"
"""What waits for any settlement waits for this name."""


class StoredMessage:
    """One envelope and where it stands."""

    __slots__ = ("count", "due", "envelope", "lease_until", "order", "receipt")

    def __init__(self, envelope: Envelope, due: float, order: int) -> None:
        self.envelope, self.due, self.order = envelope, due, order
        self.count = 0
        self.receipt: str | None = None
        self.lease_until = 0.0

    @property
    def rank(self) -> tuple[int, float, int, str]:
        return (-self.envelope.priority, self.due, self.order, self.envelope.id)


class _Wakeups:
    """Futures of any loop that wait for something of one name."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def add(self, names: Iterable[str]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for name in names:
            self._waiting[name].append(future)
        return future

    def drop(self, names: Iterable[str], future: asyncio.Future[None]) -> None:
        for name in names:
            if future in self._waiting[name]:
                self._waiting[name].remove(future)
            if not self._waiting[name]:
                del self._waiting[name]

    def wake(self, name: str) -> None:
        for future in self._waiting.pop(name, ()):
            loop = future.get_loop()
            if loop is _running_loop():
                resolve(future)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(resolve, future)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@final
class MemoryStore:
    """Queues, records and heartbeats of one process. All methods are called with ``lock`` held."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.RLock()
        self.messages: dict[str, StoredMessage] = {}
        self.ready: dict[str, list[tuple[int, float, int, str]]] = defaultdict(list)
        self.delayed: list[tuple[float, int, str]] = []
        self.leased: dict[str, StoredMessage] = {}
        self.seen: dict[str, float] = {}
        self.records: dict[str, tuple[ResultRecord, float | None]] = {}
        self.beats: dict[str, tuple[WorkerStats, float]] = {}
        self.leases: dict[str, float] = {}
        self.consumers: dict[tuple[str, str], float] = {}
        self.wakeups = _Wakeups()
        self._numbers = itertools.count()
        self._next_expiry = float("inf")
        self._swept_at = 0.0

    # --- messages ------------------------------------------------------------------------------

    def publish(self, envelopes: Iterable[Envelope], *, pending: bool) -> None:
        self._sweep()
        for envelope in envelopes:
            if self._is_repeat(envelope, pending=pending):
                continue
            self.place(envelope)
            if pending:
                self.keep(ResultRecord(id=envelope.id, state=TaskState.PENDING, hop=envelope.hop))

    def _is_repeat(self, envelope: Envelope, *, pending: bool) -> bool:
        live = self.messages.get(envelope.id)
        if live is not None and live.envelope.hop >= envelope.hop:
            return True
        if pending:
            record = self.record(envelope.id)
            return record is not None and record.hop >= envelope.hop
        return envelope.dedup_key in self.seen

    def place(self, envelope: Envelope) -> None:
        """Make *envelope* the message of its id."""
        self.remove(envelope.id)
        now = self.clock.now().timestamp()
        due = max(envelope.due.timestamp(), 0.0) if envelope.due else now
        message = self.messages[envelope.id] = StoredMessage(envelope, due, next(self._numbers))
        if due > now:
            heapq.heappush(self.delayed, (due, message.order, envelope.id))
            self.wakeups.wake(f"queue:{envelope.queue}")
        else:
            self._make_ready(message)

    def remove(self, message_id: str) -> None:
        if (message := self.messages.pop(message_id, None)) is not None:
            if message.receipt is not None:
                self.leased.pop(message.receipt, None)
            self.seen[message.envelope.dedup_key] = self.clock.monotonic() + DEDUP_WINDOW

    def _make_ready(self, message: StoredMessage) -> None:
        queue = message.envelope.queue
        heapq.heappush(self.ready[queue], message.rank)
        self.wakeups.wake(f"queue:{queue}")

    def claim(self, queues: Sequence[str], limit: int, consumer: str) -> list[Delivery]:
        now = self.clock.monotonic()
        for queue in queues:
            if (queue, consumer) in self.consumers:
                self.consumers[queue, consumer] = now
        self.promote()
        self._expire(now)
        deliveries: list[Delivery] = []
        for queue in queues:
            line = self.ready[queue]
            while line and len(deliveries) < limit:
                message = self._at(heapq.heappop(line), queue)
                if message is not None:
                    deliveries.append(self._lease(message, now, consumer))
        return deliveries

    def _at(self, rank: tuple[int, float, int, str], queue: str) -> StoredMessage | None:
        """The ready message of that rank; None if it has gone, or is another by now."""
        message = self.messages.get(rank[3])
        if message is None or message.order != rank[2] or message.receipt is not None or message.envelope.queue != queue:
            return None
        return message

    def _lease(self, message: StoredMessage, now: float, consumer: str) -> Delivery:
        seconds = self.leases.get(message.envelope.queue, 30.0)
        message.count += 1
        message.receipt = receipt = f"{consumer}:{next(self._numbers)}"
        message.lease_until = now + seconds
        self._next_expiry = min(self._next_expiry, message.lease_until)
        self.leased[receipt] = message
        return Delivery(
            envelope=message.envelope,
            receipt=receipt,
            delivery_count=message.count,
            lease_seconds=seconds,
            received_at=now,
        )

    def release(self, delivery: Delivery) -> None:
        """Take back a claim nobody heard of: it does not count."""
        if (message := self.leased.pop(delivery.receipt, None)) is not None:
            message.count -= 1
            message.receipt = None
            self._make_ready(message)

    def promote(self) -> None:
        now = self.clock.now().timestamp()
        while self.delayed and self.delayed[0][0] <= now:
            _, order, message_id = heapq.heappop(self.delayed)
            message = self.messages.get(message_id)
            if message is not None and message.order == order and message.receipt is None:
                self._make_ready(message)

    def _expire(self, now: float) -> None:
        if now < self._next_expiry:
            return
        for receipt, message in list(self.leased.items()):
            if message.lease_until <= now:
                del self.leased[receipt]
                message.receipt = None
                self._make_ready(message)
        self._next_expiry = min((m.lease_until for m in self.leased.values()), default=float("inf"))

    def until_change(self) -> float:
        """Seconds until something may become ready by itself."""
        due = self.delayed[0][0] - self.clock.now().timestamp() if self.delayed else float("inf")
        return max(0.0, min(due, self._next_expiry - self.clock.monotonic()))

    def answer(self, delivery: Delivery) -> Settled:
        """DONE if this delivery is still alive."""
        message = self.messages.get(delivery.envelope.id)
        if message is None or message.envelope.hop != delivery.envelope.hop:
            return Settled.GONE
        return Settled.DONE if message.receipt == delivery.receipt else Settled.LOST

    def settle(self, settlement: Settlement, *, joined: bool) -> Settled:
        answer = self.answer(settlement.delivery)
        if answer is not Settled.DONE:
            return answer
        own = settlement.delivery.envelope.id
        if settlement.ends:
            self.remove(own)
            for envelope in settlement.publish:
                if envelope.id == own:
                    self.place(envelope)
                    if joined and settlement.result is None:
                        self.keep(ResultRecord(id=own, state=TaskState.PENDING, hop=envelope.hop))
                else:
                    self.publish((envelope,), pending=joined)
        if joined and settlement.result is not None:
            self.keep(settlement.result)
        self.wakeups.wake(SETTLED)
        return answer

    # --- records -------------------------------------------------------------------------------

    def record(self, task_id: str) -> ResultRecord | None:
        kept = self.records.get(task_id)
        if kept is None or (kept[1] is not None and kept[1] <= self.clock.monotonic()):
            return None
        return kept[0]

    def keep(self, record: ResultRecord) -> bool:
        present = self.record(record.id)
        if present is not None and not record.may_follow(present.state, present.hop, present.delivery_count):
            return False
        expires = None if record.ttl is None else self.clock.monotonic() + record.ttl
        self.records[record.id] = (record, expires)
        if record.state.is_terminal:
            self.wakeups.wake(f"record:{record.id}")
        return True

    def forget(self, ids: Iterable[str]) -> int:
        gone = [i for i in ids if i not in self.messages and self.records.pop(i, None) is not None]
        for task_id in gone:
            self.wakeups.wake(f"record:{task_id}")
        return len(gone)

    def _sweep(self) -> None:
        """Drop what has expired, now and then."""
        now = self.clock.monotonic()
        if now - self._swept_at < 1.0:
            return
        self._swept_at = now
        self.seen = {key: until for key, until in self.seen.items() if until > now}
        expired = [i for i, (_, until) in self.records.items() if until is not None and until <= now]
        for task_id in expired:
            del self.records[task_id]
            self.wakeups.wake(f"record:{task_id}")
