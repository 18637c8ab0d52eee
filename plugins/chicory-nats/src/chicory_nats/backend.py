"""The NATS backend: one key per task id in a key-value bucket, changes pushed to whoever waits, heartbeats."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Self, final

import msgspec

from chicory.errors import BackendConnectionError
from chicory.plugin import ResultRecord, Settled, TaskState, WorkerStats, store_then_settle
from chicory_nats.broker import NatsBroker
from chicory_nats.names import header, token
from chicory_nats.reading import all_of, is_marker, seconds_of
from chicory_nats.records import PURGE, Records, id_of
from chicory_nats.server import Place, Server, check
from chicory_nats.streams import bucket, ensure
from chicory_nats.waits import Waits
from chicory_nats.wire import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from chicory.plugin import Broker, Delivery, Envelope, Joined, Settlement

__all__ = ["NatsBackend"]

_BEAT_KEPT = 86_400
"""Seconds after which the heartbeat of a worker is forgotten, if nobody cleans up before."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerStats).decode


@final
class NatsBackend:
    """Keeps records and heartbeats in one bucket. Beside a `NatsBroker` on the same server, see `JoinedNats`."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._server: Server | None = None

    def __repr__(self) -> str:
        return f"<NatsBackend {self.place.address}>"

    @property
    def address(self) -> str:
        return self.place.address

    @property
    def server(self) -> Server:
        """The opened server: between ``__aenter__`` and ``__aexit__``."""
        assert self._server is not None, "the backend is used inside of `async with`"  # noqa: S101
        return self._server

    async def __aenter__(self) -> Self:
        self._server = server = await Server(self.place, BackendConnectionError, BackendConnectionError).open()
        name = self.place.names.results
        self._records = Records(server, name)
        self._waits = Waits(server, name, self._records)
        try:
            with server.translated():
                await ensure(server, bucket(self.place, name))
                await server.set_clock(self._records.stream)
        except BaseException:
            await server.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._waits.close()
        await self.server.close()

    # --- records -------------------------------------------------------------------------------

    async def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        with self.server.translated():
            return await self._records.store(records)

    async def refused(self, claims: Mapping[str, ResultRecord]) -> AbstractSet[str]:
        """Record the starts of what runs at most once; the receipts of those that had started before, and so must not."""
        with self.server.translated():
            return claims.keys() - await self._records.claim(claims)

    async def set_pending(self, records: Sequence[ResultRecord]) -> None:
        """Say PENDING of tasks that have a record and were put back."""
        with self.server.translated():
            await self._records.store(records, only_over=True)

    async def fetch(self, ids: Sequence[str]) -> list[ResultRecord | None]:
        with self.server.translated():
            return [head.record for head in await self._records.heads(ids)]

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        with self.server.translated():
            return await self._waits.wait(task_id, exists=exists)

    async def delete(self, ids: Sequence[str]) -> int:
        with self.server.translated():
            return await self._records.forget(ids)

    async def held(self) -> Mapping[str, Sequence[ResultRecord]]:
        by_holder: dict[str, list[ResultRecord]] = defaultdict(list)
        with self.server.translated():
            keys = all_of(self.server, self._records.stream, f"$KV.{self.place.names.results}.h.*")
            ids = [id_of(headers) async for headers, _ in keys if not is_marker(headers)]
            heads = await self._records.heads(ids)
            over = []
            for task_id, head in zip(ids, heads, strict=True):
                record = head.record
                if record is not None and record.holder is not None and not record.state.is_terminal:
                    by_holder[record.holder].append(record)
                elif record is None or record.state.is_terminal:
                    over.append(task_id)
            await self._purge([self._records.holding(task_id) for task_id in over])
        return by_holder

    async def _purge(self, subjects: Sequence[str]) -> None:
        for headers, body in await self.server.ask([(subject, PURGE, b"") for subject in subjects]):
            check(headers, body, self._records.stream)

    # --- workers -------------------------------------------------------------------------------

    def _beat(self, worker_id: str) -> str:
        return f"$KV.{self.place.names.results}.w.{token(worker_id)}"

    async def beat(self, stats: WorkerStats, ttl: float) -> None:
        """The heartbeat, with the seconds for which it counts from the moment that it is stored."""
        kept = max(_BEAT_KEPT, int(ttl) + 1)
        headers = f"NATS/1.0\r\nNats-TTL: {kept}s\r\n\r\n".encode()
        with self.server.translated():
            request = (self._beat(stats.worker_id), headers, f"{ttl} ".encode() + _encode(stats))
            ((answer, body),) = await self.server.ask([request])
            check(answer, body, self._records.stream)

    async def heartbeats(self) -> list[tuple[WorkerStats, bool]]:
        now, found = self.server.now(), []
        with self.server.translated():
            async for headers, body in all_of(self.server, self._records.stream, f"$KV.{self.place.names.results}.w.*"):
                if not is_marker(headers):
                    ttl, _, text = body.partition(b" ")
                    stats = _decode(text)
                    until = seconds_of(header(headers, b"Nats-Time-Stamp")) + float(ttl)
                    found.append((stats, stats.is_running and now < until))
        return sorted(found, key=lambda pair: pair[0].worker_id)

    async def drop_workers(self, worker_ids: Sequence[str]) -> int:
        with self.server.translated():
            subjects = [self._beat(worker_id) for worker_id in worker_ids]
            gets = [(f"$JS.API.DIRECT.GET.{self._records.stream}.{subject}", b"", b"") for subject in subjects]
            answers = await self.server.ask(gets)
            there = [
                subject
                for subject, (headers, _) in zip(subjects, answers, strict=True)
                if not status_of(headers) and not is_marker(headers)
            ]
            await self._purge(there)
        return len(there)

    async def health(self) -> None:
        with self.server.translated():
            await self.server.request(f"STREAM.INFO.{self._records.stream}")

    def join(self, broker: Broker) -> Joined | None:
        if isinstance(broker, NatsBroker) and set(broker.place.servers) & set(self.place.servers):
            return JoinedNats(broker, self)
        return None

    def twin(self) -> NatsBackend:
        return NatsBackend(self.place)


@final
class JoinedNats:
    """A broker and a backend, in three steps: what follows is published, the record kept, and only then the message ended.

    A crash in between runs the task again. What it publishes then is dropped as a repeat; and if its record was kept,
    it is settled without running.
    """

    tracks_pending = False

    def __init__(self, broker: NatsBroker, backend: NatsBackend) -> None:
        self._broker, self._backend = broker, backend
        self._apart = store_then_settle(broker, backend)

    async def publish(self, envelopes: Sequence[Envelope]) -> None:
        await self._broker.publish(envelopes)

    async def settle(self, settlements: Sequence[Settlement]) -> list[Settled]:
        await self._broker.publish(self._broker.follow_ups(settlements))
        held = [settlement for settlement in settlements if self._broker.is_held(settlement.delivery)]
        claims = {s.delivery.receipt: s.result for s in held if s.ends and s.result is not None and _is_claim(s.result)}
        refused = await self._backend.refused(claims) if claims else frozenset()
        results = [s.result for s in held if s.result is not None and s.delivery.receipt not in claims]
        await self._backend.store(results)
        await self._backend.set_pending([record for s in held if (record := _put_back(s)) is not None])
        answers = await self._broker.acknowledge(settlements)
        if not refused:
            return answers
        return [
            Settled.LOST if s.delivery.receipt in refused else answer for s, answer in zip(settlements, answers, strict=True)
        ]

    async def finished(self, deliveries: Sequence[Delivery]) -> AbstractSet[str]:
        return await self._apart.finished(deliveries)


def _is_claim(record: ResultRecord) -> bool:
    """It says that a task starts that runs at most once."""
    return record.holder is not None and not record.state.is_terminal


def _put_back(settlement: Settlement) -> ResultRecord | None:
    """What a record says of a message that follows itself, unless its settlement says something else."""
    if settlement.result is not None:
        return None
    own = settlement.delivery.envelope.id
    hop = next((envelope.hop for envelope in settlement.publish if envelope.id == own), None)
    return None if hop is None else ResultRecord(id=own, state=TaskState.PENDING, hop=hop)
