"""The consumers of queues: which of them live (a bucket says so), and the durable ones of the server, of each level one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import msgspec
from msgspec import Struct

from chicory_nats.names import Names, header, made_of, plain, seconds_of, token
from chicory_nats.reading import all_of, is_marker, sequence_of, subject_of
from chicory_nats.server import Fault, Missing, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chicory_nats.server import Server

__all__ = ["Durables", "Registry"]

_BILLION = 1_000_000_000
_KEPT = 86_400
"""Seconds after which a consumer that was not seen is forgotten, if nobody cleans up before."""
_LIVE_LEASES = 2.0
"""A consumer that was seen within so many leases lives."""
_encode = msgspec.json.Encoder().encode


class Seen(Struct):
    """What the bucket says about a consumer: the lease that it goes by."""

    lease: float


_decode = msgspec.json.Decoder(Seen).decode


@final
class Registry:
    """Who uses which queue, and under what lease."""

    def __init__(self, server: Server, names: Names, consumer: str) -> None:
        self._server, self._bucket, self._me = server, names.consumers, consumer

    @property
    def stream(self) -> str:
        return f"KV_{self._bucket}"

    def _subject(self, queue: str, consumer: str) -> str:
        return f"$KV.{self._bucket}.{token(queue)}.{consumer}"

    async def enter(self, queue: str, lease: float) -> float:
        """Announce this consumer; the lease in force is that of whoever was here first and lives."""
        await self.see({queue: lease})
        first = lease
        first_sequence = None
        for consumer, seen, at, sequence in await self._of(queue):
            is_live = consumer == self._me or self._server.now() - at <= _LIVE_LEASES * seen.lease
            if is_live and (first_sequence is None or sequence < first_sequence):
                first, first_sequence = seen.lease, sequence
        if first != lease:
            await self.see({queue: first})
        return first

    async def see(self, leases: dict[str, float]) -> None:
        """This consumer lives, and uses these queues under these leases."""
        headers = f"NATS/1.0\r\nNats-TTL: {_KEPT}s\r\n\r\n".encode()
        requests = [(self._subject(queue, self._me), headers, _encode(Seen(lease))) for queue, lease in leases.items()]
        for answer_headers, body in await self._server.ask(requests):
            check(answer_headers, body, self.stream)

    async def leave(self, queues: Iterable[str]) -> None:
        """This consumer is gone."""
        for queue in queues:
            await self._forget(self._subject(queue, self._me))

    async def clean(self, queue: str, stale: float) -> int:
        """Forget who was not seen for *stale* seconds; return how many."""
        gone = 0
        for consumer, _, at, _ in await self._of(queue):
            if consumer != self._me and self._server.now() - at > stale:
                gone += await self._forget(self._subject(queue, consumer))
        return gone

    async def _forget(self, subject: str) -> int:
        answer = await self._server.request(f"STREAM.PURGE.{self.stream}", {"filter": subject})
        return int(answer["purged"])

    async def queues(self) -> set[str]:
        """All that somebody has announced."""
        keys = all_of(self._server, self.stream, f"$KV.{self._bucket}.>")
        return {plain(subject_of(headers).split(".")[2]) async for headers, _ in keys if not is_marker(headers)}

    async def _of(self, queue: str) -> Sequence[tuple[str, Seen, float, int]]:
        """Consumer, what it says, when, and its place among all."""
        return [
            (
                subject_of(headers).rpartition(".")[2],
                _decode(body),
                seconds_of(header(headers, b"Nats-Time-Stamp")),
                sequence_of(headers),
            )
            async for headers, body in all_of(self._server, self.stream, self._subject(queue, "*"))
            if not is_marker(headers)
        ]


@final
class Durables:
    """The server's consumers: one for each queue and level, through which every worker reads; and one that only counts."""

    def __init__(self, server: Server, names: Names) -> None:
        self._server, self._names = server, names
        self._made = ""
        self.on_new: list[Callable[[], object]] = []
        """Called when the stream is found to be another than it was: so are its consumers."""

    def note(self, created: str) -> None:
        """The stream was made then."""
        made = made_of(created)
        if made != self._made:
            self._made = made
            for tell in self.on_new:
                tell()

    def reader(self, queue: str, level: int) -> str:
        """The name of the consumer through which a level is read."""
        return self._names.consumer(queue, level, self._made)

    async def read(self, queue: str, level: int) -> Any:
        """What the server says about the consumer of a level; None if it is not there."""
        made = self._made
        found = await self._info(self.reader(queue, level))
        if found is None:
            self.note((await self._server.request(f"STREAM.INFO.{self._names.stream}"))["created"])
            if made != self._made:
                found = await self._info(self.reader(queue, level))
        return found

    async def counted(self, queue: str) -> int | None:
        """How many messages are delayed; None if nobody counts them."""
        found = await self._info(self._names.counter(queue))
        return None if found is None else int(found["num_pending"])

    async def _info(self, name: str) -> Any:
        try:
            return await self._server.request(f"CONSUMER.INFO.{self._names.stream}.{name}")
        except Missing:
            return None

    async def make(self, queue: str, level: int, lease: float) -> None:
        """The consumer of a level, with this lease."""
        name, subject = self.reader(queue, level), self._names.ready(queue, level)
        await self._make(name, subject, lease)

    async def count(self, queue: str) -> None:
        """The consumer that counts what is delayed."""
        await self._make(self._names.counter(queue), self._names.all_delayed(queue), 30.0)

    async def _make(self, name: str, subject: str, lease: float) -> None:
        config = {
            "name": name,
            "durable_name": name,
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": round(lease * _BILLION),
            "deliver_policy": "all",
            "max_deliver": -1,
            "max_ack_pending": -1,
            "max_waiting": 10_000,
        }
        stream = self._names.stream
        body = {"stream_name": stream, "config": config, "action": ""}
        try:
            await self._server.request(f"CONSUMER.CREATE.{stream}.{name}.{subject}", body)
        except Fault as fault:
            raise Fault(fault.code, f"consumer {name}: {fault.text}") from fault

    async def levels(self) -> dict[str, set[int]]:
        """The levels at which messages wait or run, by queue."""
        found: dict[str, set[int]] = {}
        for subject in await self.subjects(self._names.all_ready()):
            queue, level = self._names.place_of(subject)
            found.setdefault(queue, set()).add(level)
        return found

    async def subjects(self, pattern: str) -> dict[str, int]:
        """How many messages there are on each subject that *pattern* matches."""
        found: dict[str, int] = {}
        while True:
            body = {"subjects_filter": pattern, "offset": len(found)}
            answer = await self._server.request(f"STREAM.INFO.{self._names.stream}", body)
            self.note(answer["created"])
            part = answer["state"].get("subjects") or {}
            found |= part
            if not part or len(found) >= answer.get("total", 0):
                return found
