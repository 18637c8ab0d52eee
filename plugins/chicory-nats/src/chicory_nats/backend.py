"""The NATS backend: one key per task id in a key-value bucket, changes pushed to whoever waits, heartbeats."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Self, final

import msgspec

from chicory.errors import BackendConnectionError
from chicory.plugin import ResultRecord, WorkerStats
from chicory_nats.broker import NatsBroker
from chicory_nats.joined import JoinedNats
from chicory_nats.names import header, seconds_of, token
from chicory_nats.reading import all_of, is_marker
from chicory_nats.records import PURGE, Records, id_of
from chicory_nats.server import Place, Server, check
from chicory_nats.streams import bucket, ensure
from chicory_nats.waits import Waits
from chicory_nats.wire import status_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from types import TracebackType

    from chicory.plugin import Broker, Joined

__all__ = ["NatsBackend"]

_BEAT_KEPT = 86_400
"""Seconds after which the heartbeat of a worker is forgotten, if nobody cleans up before."""
_CLAIMED_WITHIN = 60.0
"""Seconds after which a key that says who holds a task is over if the task's record does not say so too."""
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

    async def claim(self, claims: Mapping[str, ResultRecord]) -> AbstractSet[str]:
        """See `Records.claim`."""
        with self.server.translated():
            return await self._records.claim(claims)

    async def unclaim(self, receipt: str, record: ResultRecord, *, comes_again: bool) -> None:
        """See `Records.unclaim`."""
        with self.server.translated():
            await self._records.unclaim(receipt, record, comes_again=comes_again)

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
            since = {
                id_of(headers): seconds_of(header(headers, b"Nats-Time-Stamp"))
                async for headers, _ in keys
                if not is_marker(headers)
            }
            ids = list(since)
            heads = await self._records.heads(ids)
            over = []
            for task_id, head in zip(ids, heads, strict=True):
                record = head.record
                if record is not None and record.holder is not None and not record.state.is_terminal:
                    by_holder[record.holder].append(record)
                elif self.server.now() - since[task_id] > _CLAIMED_WITHIN:  # it is written before the record
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
