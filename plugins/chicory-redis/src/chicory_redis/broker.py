"""The Redis broker: one stream per queue and priority, one consumer group, and scripts that take each step whole."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, final

from chicory.errors import BrokerConnectionError, BrokerFullError
from chicory.plugin import Capabilities, Delivery, QueuedMessage, QueuePage, QueueStats, Settled
from chicory_redis.rows import Queues, base_key, envelope_of, milliseconds
from chicory_redis.server import Place, Server

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    from chicory.plugin import Envelope, Settlement
    from chicory_redis.rows import Cell

__all__ = ["DEDUP_WINDOW", "RedisBroker"]

DEDUP_WINDOW = 120.0
"""Seconds for which the id of an ended message is remembered where no record of a result remembers it longer."""
_DEFAULT_LEASE = 30.0
_LEVELS = 10
_LOOK = 1.0
"""Seconds after which a consumer that waits looks for ended leases."""
_ANSWERS = {1: Settled.DONE, 0: Settled.GONE, -1: Settled.LOST}
_EXTENDED = 500
_RECEIVED = 8
"""How many values ``receive.lua`` returns for each message."""


@final
class RedisBroker:
    """Moves messages through Redis or Valkey, from version 6.2 on. How durable that is, the server's settings say."""

    capabilities = Capabilities(
        delayed=True,
        priorities=_LEVELS,
        dedup_window=DEDUP_WINDOW,
        atomic_publish=True,
        fenced=True,
        browse=True,
        persistent=True,
    )

    def __init__(self, place: Place, consumer: str | None = None, announced: dict[str, float] | None = None) -> None:
        self.place = place
        self.consumer = consumer or os.urandom(8).hex()
        self._server: Server | None = None
        self._announced = {} if announced is None else announced
        """The queues that this consumer has announced, with their leases in seconds; twins share it."""
        self._leaves = False
        self._listed: set[str] = set()
        """The queues whose names are on the server's list."""
        self._swept_at = 0.0

    def __repr__(self) -> str:
        return f"<RedisBroker {self.place.address}>"

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def server(self) -> Server:
        """The opened server: between ``__aenter__`` and ``__aexit__``."""
        assert self._server is not None, "the broker is used inside of `async with`"  # noqa: S101
        return self._server

    async def __aenter__(self) -> Self:
        self._server = await Server(self.place, BrokerConnectionError, BrokerFullError).open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._leaves:
                self._leaves = False
                await self._run("leave", [-1], list(self._announced))
                self._announced.clear()
        except BrokerConnectionError:
            pass  # its consumers are forgotten by the next clean-up
        finally:
            await self.server.close()

    def head(self, records: str = "") -> tuple[str | int, ...]:
        """The arguments that every script takes; *records* says where those are."""
        place = self.place
        return (place.prefix, place.group, self.consumer, milliseconds(DEDUP_WINDOW), place.db, records)

    async def _run(self, script: str, rows: Sequence[Cell], queues: Iterable[str]) -> Any:
        return await self.server.run(script, self.head(), rows, [self._base(queue) for queue in queues])

    def _base(self, queue: str) -> str:
        return base_key(self.place.prefix, queue)

    async def _list(self, queues: Iterable[str], *, unless_listed: bool = True) -> None:
        """Put names of queues on the server's list: before they are used, and when the server says that it forgot them."""
        if missing := set(queues).difference(self._listed if unless_listed else ()):
            await self.server.ask("SADD", f"{self.place.prefix}:queues", *missing)
            self._listed |= missing

    # --- messages ------------------------------------------------------------------------------

    async def prepare(self, queues: Sequence[str], lease_seconds: float) -> Mapping[str, float]:
        await self._list(queues)
        leases = await self._run("prepare", [milliseconds(lease_seconds)], queues)
        self._leaves = True
        in_force = {queue: int(lease) / 1000 for queue, lease in zip(queues, leases, strict=True)}
        self._announced |= in_force
        return in_force

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self.publish_with(envelopes, "")

    async def publish_with(self, envelopes: Sequence[Envelope], records: str) -> None:
        """Accept *envelopes*; with *records* given, their records say PENDING."""
        if envelopes:
            queues = Queues(self.place.prefix)
            rows = [cell for envelope in envelopes for cell in queues.message(envelope)]
            await self._list(queues.names)
            forgotten = await self.server.run("publish", self.head(records), rows, queues.keys)
            await self._list((queues.names[number - 1] for number in forgotten), unless_listed=False)

    async def receive(self, queues: Sequence[str], limit: int, wait: float) -> list[Delivery]:
        deadline = time.monotonic() + wait
        while True:
            deliveries, next_due = await self._claim(queues, limit)
            left = deadline - time.monotonic()
            if deliveries or left <= 0:
                return deliveries
            patience = min(left, next_due, _LOOK, *(self._announced.get(queue, _DEFAULT_LEASE) / 8 for queue in queues))
            if patience > 0 and (found := await self._await_new(queues, limit, patience)):
                return found

    async def _claim(self, queues: Sequence[str], limit: int) -> tuple[list[Delivery], float]:
        """What is ready, and in how many seconds something delayed will be."""
        at = time.monotonic()
        sweeps = at - self._swept_at >= _LOOK / 4
        if sweeps:
            self._swept_at = at
        rows = [limit, 1 if sweeps else 0, milliseconds(_DEFAULT_LEASE)]
        answer = await self._run("receive", rows, queues)
        first = 1 + len(queues)
        sources = [(queue, lease / 1000) for queue, lease in zip(queues, answer[1:first], strict=True)]
        deliveries = [
            _delivery(sources[number - 1], int(level), entry.decode(), count, at, envelope)
            for number, level, entry, count, *envelope in _batched(answer[first:], _RECEIVED)
        ]
        return deliveries, float("inf") if answer[0] < 0 else answer[0] / 1000

    async def _await_new(self, queues: Sequence[str], limit: int, seconds: float) -> list[Delivery]:
        """Wait for a message, or for the bell that rings when one is delayed that is due earlier than those before."""
        bells = {f"{self._base(queue)}:bell": queue for queue in queues}
        streams = {f"{self._base(queue)}:s:{level}": (queue, level) for queue in queues for level in reversed(range(_LEVELS))}
        wanted = dict.fromkeys([*streams, *bells], ">")
        at = time.monotonic()  # a lease may begin at any moment of the waiting: this process may be stopped in between
        answer = await self.server.read_new(self.place.group, self.consumer, wanted, limit, seconds)
        deliveries: list[Delivery] = []
        for key, entries in _pairs(answer):
            name = key.decode()
            if name in bells:
                await self._quieten(name, [entry for entry, _ in entries])
                continue
            queue, level = streams[name]
            lease = self._announced.get(queue) or await self._lease_of(queue)
            deliveries += [
                _delivery(
                    (queue, lease), level, entry.decode(), 1, at, (fields[b"i"], fields[b"h"], fields[b"d"], fields[b"b"])
                )
                for entry, fields in entries
            ]
        if len(deliveries) > limit:
            over = Queues(self.place.prefix)
            rows = [cell for delivery in deliveries[limit:] for cell in over.receipt(delivery.receipt)[:3]]
            await self.server.run("release", self.head(), rows, over.keys)
        return deliveries[:limit]

    async def _quieten(self, bell: str, entries: Sequence[bytes]) -> None:
        await self.server.ask("XACK", bell, self.place.group, *entries)
        await self.server.ask("XDEL", bell, *entries)

    async def _lease_of(self, queue: str) -> float:
        lease = await self.server.ask("HGET", f"{self._base(queue)}:q", "lease")
        return _DEFAULT_LEASE if lease is None else int(lease) / 1000

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        return await self.settle_with(settlements, "")

    async def settle_with(self, settlements: Sequence[Settlement], records: str) -> list[Settled]:
        """End deliveries; with *records* given, their results are kept in the same step."""
        if not settlements:
            return []
        queues = Queues(self.place.prefix)
        rows = queues.settlements(settlements, joined=bool(records))
        await self._list(queues.names)
        answers = await self.server.run("settle", self.head(records), rows, queues.keys)
        await self._list((queues.names[number - 1] for number in answers[len(settlements) :]), unless_listed=False)
        return [_ANSWERS[answer] for answer in answers[: len(settlements)]]

    async def extend(self, receipts: Sequence[str]) -> set[str]:
        lost: set[str] = set()
        for start in range(0, max(len(receipts), 1), _EXTENDED):
            part = receipts[start : start + _EXTENDED]
            queues = Queues(self.place.prefix, tuple(self._announced))
            rows = [cell for receipt in part for cell in queues.receipt(receipt)]
            lost |= {part[number] for number in await self.server.run("extend", self.head(), rows, queues.keys)}
        return lost

    # --- queues --------------------------------------------------------------------------------

    async def stats(self, queue: str) -> QueueStats:
        ready, delayed, running, oldest = await self._run("stats", (), [queue])
        age = None if oldest < 0 else oldest / 1000
        return QueueStats(queue=queue, ready=ready, delayed=delayed, running=running, oldest_seconds=age)

    async def purge(self, queue: str) -> int:
        total = 0
        while gone := int(await self._run("purge", (), [queue])):
            total += gone
        return total

    async def cleanup(self, queue: str, stale_seconds: float) -> int:
        return int(await self._run("leave", [milliseconds(stale_seconds)], [queue]))

    async def health(self) -> None:
        await self.server.ask("PING")

    def twin(self) -> RedisBroker:
        return RedisBroker(self.place, self.consumer, self._announced)

    # --- browsing ------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        names = await self.server.ask("SMEMBERS", f"{self.place.prefix}:queues")
        return sorted(name.decode() for name in names)

    async def list_messages(self, queue: str, *, limit: int, after: str | None = None) -> QueuePage:
        cursor, *rows = await self._run("browse", [limit, after or ""], [queue])
        return QueuePage(messages=[_seen(queue, row) for row in rows], cursor=cursor.decode() or None)

    async def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        _, *rows = await self._run("browse", [0, "=", *sorted(ids)], [queue])
        return [_seen(queue, row) for row in rows]

    async def delete_messages(self, queue: str, ids: Sequence[str]) -> int:
        nothing = (0, "", 0, 0, 0, "-", 0, "")
        return len(await self._run("move", [cell for message_id in ids for cell in (message_id, *nothing)], [queue]))

    async def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        queues = Queues(self.place.prefix, [queue])
        rows = [cell for old, envelope in replacements.items() for cell in (old, 1, *queues.message(envelope))]
        await self._list(queues.names)
        return {moved.decode() for moved in await self.server.run("move", self.head(), rows, queues.keys)}


def _delivery(source: tuple[str, float], level: int, entry: str, count: int, at: float, envelope: Sequence[bytes]) -> Delivery:
    """*source*: queue and lease; *envelope*: id, hop, due, body."""
    queue, lease = source
    return Delivery(
        envelope=envelope_of(queue, level, *envelope),
        receipt=f"{queue} {level} {entry} {count}",
        delivery_count=count,
        lease_seconds=lease,
        received_at=at,
    )


def _batched(values: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """*values* in groups of *size* (``itertools.batched`` is there from Python 3.12 on)."""
    return zip(*([iter(values)] * size), strict=True)


def _pairs(answer: Any) -> Iterable[tuple[bytes, list[tuple[bytes, Mapping[bytes, bytes]]]]]:
    """Streams and their entries, as either version of the protocol has them."""
    if not answer:
        return []
    return answer.items() if isinstance(answer, dict) else answer


def _seen(queue: str, row: Sequence[bytes]) -> QueuedMessage:
    kind, level, since, id_, hop, due, body = row
    envelope = envelope_of(queue, int(level), id_, hop, due, body)
    return QueuedMessage(envelope=envelope, state=kind.decode(), since=datetime.fromtimestamp(float(since) / 1000, UTC))
