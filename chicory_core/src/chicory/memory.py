"""The in-memory broker and backend: for tests and single-process use. Verified by the same suites as every other.

Twins share a store, so all event loops and threads of a process see the same queues; a lock guards it.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Self, final

from chicory.broker import Capabilities, QueuedMessage, QueuePage, QueueStats
from chicory.clock import SYSTEM_CLOCK, Clock
from chicory.memory_store import DEDUP_WINDOW, MemoryStore, StoredMessage, resolve
from chicory.message import Delivery, Envelope, ResultRecord, Settled, Settlement, TaskState, new_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from chicory.broker import Broker
    from chicory.message import WorkerStats

__all__ = ["MemoryBackend", "MemoryBroker", "MemoryStore"]

_STALE = 2.0
"""A consumer counts as live for this many leases after it was last seen."""


class _Opened:
    """Nothing to open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @property
    def address(self) -> str:
        return "memory://"

    async def health(self) -> None:
        return None


@final
class MemoryBroker(_Opened):
    """A broker that lives in this process. Give the same *store* to a `MemoryBackend` to have them joined."""

    capabilities = Capabilities(
        delayed=True, priorities=10, dedup_window=DEDUP_WINDOW, atomic_publish=True, fenced=True, browse=True
    )

    def __init__(self, clock: Clock = SYSTEM_CLOCK, store: MemoryStore | None = None, consumer: str | None = None) -> None:
        self.store = MemoryStore(clock) if store is None else store
        self._consumer = consumer or new_id()
        self._is_announced = False

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_announced:
            return  # a twin: whose consumer goes on
        self._is_announced = False
        with self.store.lock:
            for key in [key for key in self.store.consumers if key[1] == self._consumer]:
                del self.store.consumers[key]

    async def prepare(self, queues: Sequence[str], lease_seconds: float) -> Mapping[str, float]:
        store, now = self.store, self.store.clock.monotonic()
        self._is_announced = True
        with store.lock:
            for queue in queues:
                recorded = store.leases.setdefault(queue, lease_seconds)
                others = (seen for (q, c), seen in store.consumers.items() if q == queue and c != self._consumer)
                if not any(now - seen <= recorded * _STALE for seen in others):
                    store.leases[queue] = lease_seconds
                store.consumers[queue, self._consumer] = now
            return {queue: store.leases[queue] for queue in queues}

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        with self.store.lock:
            self.store.publish(envelopes, pending=False)

    async def receive(self, queues: Sequence[str], limit: int, wait: float) -> list[Delivery]:
        store, clock = self.store, self.store.clock
        names = [f"queue:{queue}" for queue in queues]
        deadline = clock.monotonic() + wait
        while True:
            with store.lock:
                deliveries = store.claim(queues, limit, self._consumer)
                left = deadline - clock.monotonic()
                if deliveries or left <= 0:
                    return deliveries
                woken = store.wakeups.add(names)
                left = min(left, store.until_change())
            timer = clock.call_later(left, partial(resolve, woken))
            try:
                await woken
            finally:
                timer.cancel()
                with store.lock:
                    store.wakeups.drop(names, woken)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        with self.store.lock:
            return [self.store.settle(settlement, joined=False) for settlement in settlements]

    async def extend(self, receipts: Sequence[str]) -> set[str]:
        store, now = self.store, self.store.clock.monotonic()
        lost = set()
        with store.lock:
            for receipt in receipts:
                if (message := store.leased.get(receipt)) is None:
                    lost.add(receipt)
                else:
                    message.lease_until = now + store.leases.get(message.envelope.queue, 30.0)
            for key in [key for key in store.consumers if key[1] == self._consumer]:
                store.consumers[key] = now
        return lost

    async def stats(self, queue: str) -> QueueStats:
        store = self.store
        with store.lock:
            store.promote()
            mine = [m for m in store.messages.values() if m.envelope.queue == queue]
            now = store.clock.now().timestamp()
            running = [m for m in mine if m.receipt is not None]
            waiting = [m for m in mine if m.receipt is None and m.due <= now]
            oldest = min((m.due for m in waiting), default=None)
        return QueueStats(
            queue=queue,
            ready=len(waiting),
            delayed=len(mine) - len(running) - len(waiting),
            running=len(running),
            oldest_seconds=None if oldest is None else now - oldest,
        )

    async def purge(self, queue: str) -> int:
        with self.store.lock:
            return self._delete(m.envelope.id for m in self._free(queue))

    async def cleanup(self, queue: str, stale_seconds: float) -> int:
        store, now = self.store, self.store.clock.monotonic()
        with store.lock:
            stale = [k for k, seen in store.consumers.items() if k[0] == queue and now - seen > stale_seconds]
            for key in stale:
                del store.consumers[key]
        return len(stale)

    def twin(self) -> MemoryBroker:
        return MemoryBroker(store=self.store, consumer=self._consumer)

    # --- browsing ------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        with self.store.lock:
            return sorted({m.envelope.queue for m in self.store.messages.values()} | set(self.store.leases))

    async def list_messages(self, queue: str, *, limit: int, after: str | None = None) -> QueuePage:
        with self.store.lock:
            ids = sorted(i for i, m in self.store.messages.items() if m.envelope.queue == queue and (not after or i > after))
            page = [self._seen(self.store.messages[i]) for i in ids[:limit]]
        return QueuePage(messages=page, cursor=page[-1].envelope.id if len(ids) > limit else None)

    async def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        with self.store.lock:
            found = [self.store.messages[i] for i in sorted(ids) if i in self.store.messages]
            return [self._seen(message) for message in found if message.envelope.queue == queue]

    async def delete_messages(self, queue: str, ids: Sequence[str]) -> int:
        with self.store.lock:
            free = {m.envelope.id for m in self._free(queue)}
            return self._delete(i for i in ids if i in free)

    async def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        store, moved = self.store, set()
        with store.lock:
            free = {m.envelope.id: m.envelope.hop for m in self._free(queue)}
            for message_id in free.keys() & replacements.keys():
                envelope = replacements[message_id]
                if envelope.id == message_id and envelope.hop <= free[message_id]:
                    continue
                store.remove(message_id)
                store.place(envelope)
                if store.record(envelope.id) is not None:
                    store.keep(ResultRecord(id=envelope.id, state=TaskState.PENDING, hop=envelope.hop))
                moved.add(message_id)
        return moved

    def _free(self, queue: str) -> list[StoredMessage]:
        return [m for m in self.store.messages.values() if m.envelope.queue == queue and m.receipt is None]

    def _delete(self, ids: Iterable[str]) -> int:
        gone = list(ids)
        for message_id in gone:
            self.store.remove(message_id)
            self.store.records.pop(message_id, None)
            self.store.wakeups.wake(f"record:{message_id}")
        return len(gone)

    def _seen(self, message: StoredMessage) -> QueuedMessage:
        now = self.store.clock.now()
        state = "running" if message.receipt else "delayed" if message.due > now.timestamp() else "ready"
        return QueuedMessage(envelope=message.envelope, state=state, since=now.fromtimestamp(message.due, tz=now.tzinfo))


@final
class MemoryBackend(_Opened):
    """A backend that lives in this process."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK, store: MemoryStore | None = None) -> None:
        self._store = MemoryStore(clock) if store is None else store

    async def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        with self._store.lock:
            return [self._store.keep(record) for record in records]

    async def fetch(self, ids: Sequence[str]) -> list[ResultRecord | None]:
        with self._store.lock:
            return [self._store.record(task_id) for task_id in ids]

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        store, name = self._store, f"record:{task_id}"
        while True:
            with store.lock:
                record = store.record(task_id)
                if record is not None and record.state.is_terminal:
                    return record
                if record is None and exists:
                    return None
                exists = exists or record is not None
                woken = store.wakeups.add((name,))
            try:
                await woken
            finally:
                with store.lock:
                    store.wakeups.drop((name,), woken)

    async def delete(self, ids: Sequence[str]) -> int:
        with self._store.lock:
            return self._store.forget(ids)

    async def beat(self, stats: WorkerStats, ttl: float) -> None:
        with self._store.lock:
            self._store.beats[stats.worker_id] = (stats, self._store.clock.monotonic() + ttl)

    async def heartbeats(self) -> list[tuple[WorkerStats, bool]]:
        now = self._store.clock.monotonic()
        with self._store.lock:
            beats = sorted(self._store.beats.items())
        return [(stats, stats.is_running and now < until) for _, (stats, until) in beats]

    async def drop_workers(self, worker_ids: Sequence[str]) -> int:
        with self._store.lock:
            return sum(self._store.beats.pop(worker_id, None) is not None for worker_id in worker_ids)

    async def held(self) -> Mapping[str, Sequence[ResultRecord]]:
        held: dict[str, list[ResultRecord]] = defaultdict(list)
        with self._store.lock:
            for record, _ in self._store.records.values():
                if record.holder is not None and not record.state.is_terminal:
                    held[record.holder].append(record)
        return held

    def join(self, broker: Broker) -> MemoryJoined | None:
        return MemoryJoined(self._store) if isinstance(broker, MemoryBroker) and broker.store is self._store else None

    def twin(self) -> MemoryBackend:
        return MemoryBackend(store=self._store)


@final
class MemoryJoined:
    """Broker and backend on one store: each of these is one step."""

    tracks_pending = True

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        with self._store.lock:
            self._store.publish(envelopes, pending=True)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        with self._store.lock:
            return [self._store.settle(settlement, joined=True) for settlement in settlements]

    async def finished(self, deliveries: Sequence[Delivery]) -> frozenset[str]:
        return frozenset()
