"""The NATS broker: one work-queue stream, for each queue and level a durable consumer, and schedules for what is delayed."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Self, final

from chicory.errors import BrokerConnectionError, BrokerFullError, PayloadTooLargeError
from chicory.plugin import Capabilities, QueueStats, Settled
from chicory_nats.browse import Browser
from chicory_nats.consumers import Durables, Registry
from chicory_nats.leases import Leases, stored_at, stream_sequence
from chicory_nats.names import TOP, delay_headers, header, message_headers, seconds_of
from chicory_nats.pulls import Pulls
from chicory_nats.server import Missing, Place, Server, check
from chicory_nats.streams import bucket, ensure, messages
from chicory_nats.wire import status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from chicory.plugin import Delivery, Envelope, QueuedMessage, QueuePage, Settlement
    from chicory_nats.wire import Request

__all__ = ["DEDUP_WINDOW", "NatsBroker"]

DEDUP_WINDOW = 120.0
"""Seconds for which a stream remembers what was published to it."""
_HEADROOM = 4096
"""Of a server's limit for a message, what headers may take."""
_LARGEST = 1024 * 1024 - _HEADROOM
_LEVELS = TOP + 1
_MEND_PAUSE = 1.0
"""Seconds between two tries to make anew what somebody has deleted; sooner, the caller's own patience is asked for."""
_SAME_MOMENT = 0.0001
"""Seconds: moments are compared as floats, one of them cut to microseconds."""
_COUNTS = 5
"""How often a queue is counted, at most, while messages in it become due."""
_UNANSWERED = (b"NATS/1.0 408 No Answer\r\n\r\n", b"")
"""A consumer that was deleted and made anew does not answer about what it has not delivered yet."""
_ACK, _NAK, _PROGRESS = b"+ACK", b"-NAK", b"+WPI"


@final
class NatsBroker:
    """Moves messages through NATS JetStream, from version 2.12 on. How durable that is, the server's settings say."""

    capabilities = Capabilities(
        delayed=True,
        priorities=_LEVELS,
        dedup_window=DEDUP_WINDOW,
        atomic_publish=False,
        fenced=False,
        browse=True,
        max_message_bytes=_LARGEST,
        persistent=True,
    )

    def __init__(
        self, place: Place, consumer: str | None = None, shared: tuple[dict[str, float], Leases] | None = None
    ) -> None:
        self.place = place
        self.consumer = consumer or os.urandom(8).hex()
        self._leaves = False
        self._announced, self._leases = shared or ({}, Leases())
        """The queues that this consumer has announced, with their leases in seconds; and what it holds. Twins share both."""
        self._server: Server | None = None
        self._mended_at = float("-inf")

    def __repr__(self) -> str:
        return f"<NatsBroker {self.place.address}>"

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def server(self) -> Server:
        """The opened server: between ``__aenter__`` and ``__aexit__``."""
        assert self._server is not None, "the broker is used inside of `async with`"  # noqa: S101
        return self._server

    async def __aenter__(self) -> Self:
        names = self.place.names
        self._server = server = await Server(self.place, BrokerConnectionError, BrokerFullError).open()
        self._registry = Registry(server, names, self.consumer)
        self._durables = Durables(server, names)
        self._pulls = Pulls(server, names, self._durables, self._leases, self._announced)
        self._browser = Browser(server, names, self._durables)
        try:
            with server.translated():
                await self._make_streams()
        except BaseException:
            await server.close()
            raise
        return self

    async def _make_streams(self) -> None:
        self._durables.note((await ensure(self.server, messages(self.place, DEDUP_WINDOW)))["created"])
        await ensure(self.server, bucket(self.place, self.place.names.consumers))
        await self.server.set_clock(self.place.names.stream)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            with self.server.translated():
                if self.server.is_connected:
                    await self._go()
        except BrokerConnectionError:
            pass  # what it held comes again, and it is forgotten by the next clean-up
        finally:
            await self.server.close()

    async def _go(self) -> None:
        unwanted = await self._pulls.close()
        if unwanted:
            await self.server.ask([(receipt, b"", _NAK) for receipt in unwanted])
        if self._leaves:
            self._leaves = False
            await self._registry.leave(list(self._announced))
            self._announced.clear()

    async def _whole(self, act: Callable[[], Awaitable[Any]]) -> Any:
        """What *act* returns; if somebody has deleted a stream or consumer, it is made anew, and asked again."""
        with self.server.translated():
            try:
                return await act()
            except Missing:
                if time.monotonic() - self._mended_at < _MEND_PAUSE:
                    raise
                self._mended_at = time.monotonic()
                await self._mend()
                return await act()

    async def _mend(self) -> None:
        self._pulls.forget()
        await self._make_streams()
        if self._announced:
            await self._registry.see(self._announced)
            await self._make_consumers(self._announced)

    async def _make_consumers(self, queues: Mapping[str, float]) -> None:
        for queue in queues:
            await self._pulls.ensure(queue, 0)
            await self._durables.count(queue)

    # --- messages ------------------------------------------------------------------------------

    async def prepare(self, queues: Sequence[str], lease_seconds: float) -> Mapping[str, float]:
        async def preparing() -> dict[str, float]:
            in_force = {queue: await self._registry.enter(queue, lease_seconds) for queue in queues}
            self._leaves = True
            self._announced |= in_force
            self._pulls.forget()
            await self._make_consumers(in_force)
            return in_force

        found: dict[str, float] = await self._whole(preparing)
        return found

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        requests = [self._request(envelope) for envelope in envelopes]

        async def publishing() -> None:
            for headers, body in await self.server.ask(requests):
                check(headers, body, f"stream {self.place.names.stream}")

        await self._whole(publishing)

    def _request(self, envelope: Envelope) -> Request:
        limit = min(_LARGEST, self.server.max_payload - _HEADROOM)
        if len(envelope.body) > limit:
            raise PayloadTooLargeError(f"message {envelope.id!r}", len(envelope.body), limit)
        names = self.place.names
        ready = names.ready(envelope.queue, min(max(envelope.priority, 0), TOP))
        if envelope.due is not None and envelope.due.timestamp() > self.server.now():
            return names.delayed(envelope), delay_headers(envelope, ready), envelope.body
        return ready, message_headers(envelope), envelope.body

    async def receive(self, queues: Sequence[str], limit: int, wait: float) -> list[Delivery]:
        found: list[Delivery] = await self._whole(lambda: self._pulls.receive(queues, limit, wait))
        return found

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        await self.publish(self.follow_ups(settlements))
        return await self.acknowledge(settlements)

    def follow_ups(self, settlements: Sequence[Settlement]) -> list[Envelope]:
        """What is to be published before anything ends."""
        return [
            envelope
            for settlement in settlements
            if settlement.publish and self.is_held(settlement.delivery)
            for envelope in settlement.publish
        ]

    def may_be_repeated(self, delivery: Delivery) -> bool:
        """Whether its message was there when the connection was lost: its server may have ended, and forgotten deliveries."""
        return stored_at(delivery.receipt) < self.server.lost_at

    def is_held(self, delivery: Delivery) -> bool:
        """Whether its lease lives, for all that can be known here."""
        return self._leases.is_live(delivery.receipt)

    async def acknowledge(self, settlements: Sequence[Settlement]) -> list[Settled]:
        """End deliveries, whose follow-ups are published; those whose lease is over are let be."""
        ending = [s.delivery.receipt for s in settlements if s.ends and self.is_held(s.delivery)]
        with self.server.translated():
            answers = await self.server.ask([(receipt, b"", _ACK) for receipt in ending], _UNANSWERED)
            done = {r for r, (headers, _) in zip(ending, answers, strict=True) if not status_of(headers)}
            alive = {s.delivery.receipt for s in settlements if not s.ends and self.is_held(s.delivery)}
            for receipt in ending:
                self._leases.end(receipt)
            rest = [s.delivery for s in settlements if s.delivery.receipt not in done and s.delivery.receipt not in alive]
            there = await self._there(rest)
        found: list[Settled] = []
        for settlement in settlements:
            receipt = settlement.delivery.receipt
            if receipt in done or receipt in alive:
                found.append(Settled.DONE)
                done.discard(receipt)
            else:
                found.append(Settled.LOST if receipt in there else Settled.GONE)
        return found

    async def is_there(self, delivery: Delivery) -> bool:
        """Whether its message is still in the stream."""
        with self.server.translated():
            return bool(await self._there([delivery]))

    async def _there(self, deliveries: Sequence[Delivery]) -> set[str]:
        """The receipts of those whose message is still in the stream."""
        if not deliveries:
            return set()
        subject = f"$JS.API.DIRECT.GET.{self.place.names.stream}"
        requests = [(subject, b"", b'{"seq":%d}' % stream_sequence(d.receipt)) for d in deliveries]
        answers = await self.server.ask(requests)
        return {d.receipt for d, (headers, _) in zip(deliveries, answers, strict=True) if _is_of(d.receipt, headers)}

    async def extend(self, receipts: Sequence[str]) -> set[str]:
        held = [receipt for receipt in receipts if self._leases.is_live(receipt)]
        lost = set(receipts).difference(held)
        asked_at = time.monotonic()
        with self.server.translated():
            answers = await self.server.ask([(receipt, b"", _PROGRESS) for receipt in held])
            kept = [r for r, (headers, _) in zip(held, answers, strict=True) if not status_of(headers)]
            lost |= set(held).difference(kept) | self._leases.extend(kept, asked_at)
            if self._announced:
                await self._registry.see(self._announced)
        return lost

    # --- queues --------------------------------------------------------------------------------

    async def stats(self, queue: str) -> QueueStats:
        found: QueueStats = await self._whole(lambda: self._stats(queue))
        return found

    async def _stats(self, queue: str) -> QueueStats:
        """Counted anew if something became due meanwhile: it would be counted twice, or not at all."""
        delayed = await self._delayed(queue)
        for _ in range(_COUNTS):
            found = await self._count(queue, delayed)
            before, delayed = delayed, await self._delayed(queue)
            if before == delayed:
                break
        return found

    async def _count(self, queue: str, delayed: int) -> QueueStats:
        names = self.place.names
        there = await self._durables.subjects(names.all_ready(queue))
        running, oldest = 0, None
        for subject, count in there.items():
            info = await self._durables.read(*names.place_of(subject))
            held = 0 if info is None else min(info["num_ack_pending"], count)
            running += held
            if held < count:
                since = await self._oldest(subject, 0 if info is None else info["delivered"]["stream_seq"])
                oldest = since if oldest is None or since < oldest else oldest
        ready = sum(there.values()) - running
        age = None if not ready else max(0.0, self.server.now() - (oldest or self.server.now()))
        return QueueStats(queue=queue, ready=ready, delayed=delayed, running=running, oldest_seconds=age)

    async def _oldest(self, subject: str, delivered: int) -> float:
        """When the first message of *subject* that nobody has had became due."""
        body = b'{"seq":%d,"next_by_subj":"%s"}' % (delivered + 1, subject.encode())
        ((headers, _),) = await self.server.ask([(f"$JS.API.DIRECT.GET.{self.place.names.stream}", b"", body)])
        return self.server.now() if status_of(headers) else seconds_of(header(headers, b"Nats-Time-Stamp"))

    async def _delayed(self, queue: str) -> int:
        counted = await self._durables.counted(queue)
        if counted is not None:
            return counted
        return sum((await self._durables.subjects(self.place.names.all_delayed(queue))).values())

    async def purge(self, queue: str) -> int:
        found: int = await self._whole(lambda: self._purge(queue))
        return found

    async def _purge(self, queue: str) -> int:
        names = self.place.names
        gone = await self._purge_all(names.all_delayed(queue))
        for subject in await self._durables.subjects(names.all_ready(queue)):
            _, level = names.place_of(subject)
            info = await self._durables.read(queue, level)
            if info is None or not info["num_ack_pending"]:
                gone += await self._purge_all(subject)
            else:
                gone += await self._purge_free(queue, level)
        return gone

    async def _purge_all(self, subject: str) -> int:
        answer = await self.server.request(f"STREAM.PURGE.{self.place.names.stream}", {"filter": subject})
        return int(answer["purged"])

    async def _purge_free(self, queue: str, level: int) -> int:
        """Take what nobody holds, and be done with it."""
        gone = 0
        while receipts := await self._pulls.take_away(queue, level):
            await self.server.ask([(receipt, b"", _ACK) for receipt in receipts])
            gone += len(receipts)
        return gone

    async def cleanup(self, queue: str, stale_seconds: float) -> int:
        gone: int = await self._whole(lambda: self._registry.clean(queue, stale_seconds))
        return gone

    async def health(self) -> None:
        with self.server.translated():
            await self.server.request(f"STREAM.INFO.{self.place.names.stream}")

    def twin(self) -> NatsBroker:
        return NatsBroker(self.place, self.consumer, (self._announced, self._leases))

    # --- browsing ------------------------------------------------------------------------------

    async def queues(self) -> list[str]:
        async def listing() -> set[str]:
            return await self._registry.queues() | await self._browser.queues()

        return sorted(await self._whole(listing))

    async def list_messages(self, queue: str, *, limit: int, after: str | None = None) -> QueuePage:
        page: QueuePage = await self._whole(lambda: self._browser.page(queue, limit, after))
        return page

    async def get_messages(self, queue: str, ids: Sequence[str]) -> list[QueuedMessage]:
        found: dict[str, Any] = await self._whole(lambda: self._browser.find(queue, ids))
        return [found[message_id].seen for message_id in sorted(found)]

    async def delete_messages(self, queue: str, ids: Sequence[str]) -> int:
        async def deleting() -> int:
            found = await self._browser.find(queue, ids)
            return len(await self._browser.remove([item for item in found.values() if item.is_free]))

        gone: int = await self._whole(deleting)
        return gone

    async def move(self, queue: str, replacements: Mapping[str, Envelope]) -> set[str]:
        """Published first, under its fixed id, and then removed: who removes a message has moved it."""

        async def moving() -> set[str]:
            found = await self._browser.find(queue, list(replacements))
            here = {
                message_id: item
                for message_id, item in found.items()
                if item.is_free and (message_id != replacements[message_id].id or item.hop < replacements[message_id].hop)
            }
            await self.publish([replacements[message_id] for message_id in here])
            return await self._browser.remove(list(here.values()))

        moved: set[str] = await self._whole(moving)
        return moved


def _is_of(receipt: str, headers: bytes) -> bool:
    """Whether the message that is found is the one of *receipt*: a stream that was made anew has others in the same places."""
    if status_of(headers):
        return False
    return abs(seconds_of(header(headers, b"Nats-Time-Stamp")) - stored_at(receipt)) < _SAME_MOMENT
