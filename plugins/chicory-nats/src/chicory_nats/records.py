"""Records of results as values of a key-value bucket, each written against the one that is there."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct
from msgspec.structs import replace

from chicory.plugin import ResultRecord, TaskState
from chicory_nats.names import header, plain, seconds_of, token
from chicory_nats.reading import is_marker, sequence_of, subject_of
from chicory_nats.server import Fault, check, sequence_in
from chicory_nats.wire import status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chicory_nats.server import Server
    from chicory_nats.wire import Request

__all__ = ["PURGE", "Head", "Records", "id_of", "read"]

_OVERTAKEN = 10071
"""The bucket has another revision than the one that was expected."""
_KNOWN = 10_000
PURGE = b"NATS/1.0\r\nKV-Operation: PURGE\r\nNats-Rollup: sub\r\nNats-TTL: 1s\r\n\r\n"
"""What is under a key goes, whoever watches is told, and in a second nothing of it is left."""


@final
class Head(Struct, frozen=True):
    """What decides who may overwrite a record. *revision* is 0 where there is none."""

    revision: int = 0
    record: ResultRecord | None = None

    def lets(self, record: ResultRecord) -> bool:
        old = self.record
        return old is None or record.may_follow(old.state, old.hop, old.delivery_count)


def write(record: ResultRecord) -> bytes:
    """state, hop, count, milliseconds to live, holder; then the body."""
    ttl = "-" if record.ttl is None else max(1, round(record.ttl * 1000))
    head = f"{record.state.value}\n{record.hop}\n{record.delivery_count}\n{ttl}\n{token(record.holder or '')}\n"
    return head.encode() + record.body


def read(task_id: str, headers: bytes, value: bytes, now: float) -> ResultRecord | None:
    """The record in a message; None if it is a marker, or its time is over: a server may take longer to notice."""
    if is_marker(headers) or not value:
        return None
    state, hop, count, ttl, holder, body = value.split(b"\n", 5)
    if ttl != b"-" and (stamp := header(headers, b"Nats-Time-Stamp")) and now >= seconds_of(stamp) + int(ttl) / 1000:
        return None
    known: dict[str, Any] = {"holder": plain(holder.decode()) or None, "body": body}
    return ResultRecord(id=task_id, state=TaskState(state.decode()), hop=int(hop), delivery_count=int(count), **known)


@final
class Records:
    """The records of one bucket. What this process wrote last is remembered, so that most writes are one round trip."""

    def __init__(self, server: Server, bucket: str) -> None:
        self._server, self._bucket = server, bucket
        self._heads: dict[str, Head] = {}
        self._claims: dict[str, str] = {}
        """The receipts under which this process has claimed what runs at most once."""
        server.on_loss.append(self._heads.clear)

    @property
    def stream(self) -> str:
        return f"KV_{self._bucket}"

    def subject(self, task_id: str) -> str:
        return f"$KV.{self._bucket}.r.{token(task_id)}"

    def holding(self, task_id: str) -> str:
        """The key that says who runs a task at most once."""
        return f"$KV.{self._bucket}.h.{token(task_id)}"

    async def heads(self, ids: Sequence[str]) -> list[Head]:
        """What is there for each of *ids*."""
        requests = [(f"$JS.API.DIRECT.GET.{self.stream}.{self.subject(task_id)}", b"", b"") for task_id in ids]
        answers = await self._server.ask(requests)
        return [self._head(task_id, *answer) for task_id, answer in zip(ids, answers, strict=True)]

    def _head(self, task_id: str, headers: bytes, body: bytes) -> Head:
        if (code := status_of(headers)) == 404:  # noqa: PLR2004 - as the server says it
            return Head()
        if code:
            check(headers, body, self.stream)
        return Head(sequence_of(headers), read(task_id, headers, body, self._server.now()))

    async def claim(self, claims: Mapping[str, ResultRecord]) -> set[str]:
        """Say by receipt who runs what at most once; return the receipts of those that nobody has started before.

        A server that was killed may hand out again what it had been told the end of: a claim is for one receipt.
        """
        receipts, records = list(claims), list(claims.values())

        def may_claim(index: int, head: Head) -> bool:
            old, record = head.record, records[index]
            is_free = old is None or (old.holder is None and not old.state.is_terminal)
            return is_free or self._claims.get(record.id) == receipts[index]

        await self._learn([record.id for record in records])
        kept = await self._store(records, may_claim)
        granted = [index for index, is_kept in enumerate(kept) if is_kept]
        self._claims |= {records[index].id: receipts[index] for index in granted}
        return {receipts[index] for index in granted}

    async def unclaim(self, receipt: str, record: ResultRecord, *, comes_again: bool) -> None:
        """What was claimed under *receipt* does not start here: say so, if nobody has said anything else since.

        It is PENDING if its message *comes_again*; else it is held by nobody who lives, so that a clean-up ends it.
        """
        if self._claims.get(record.id) != receipt:
            return
        del self._claims[record.id]

        def is_ours(_index: int, head: Head) -> bool:
            return head.record is not None and head.record.holder == record.holder and not head.record.state.is_terminal

        await self._learn([record.id])
        changed = (
            {"state": TaskState.PENDING, "holder": None, "body": b""} if comes_again else {"holder": f"{record.holder} (lost)"}
        )
        await self._store([replace(record, **changed)], is_ours)

    async def store(self, records: Sequence[ResultRecord]) -> list[bool]:
        """Write each record that may follow what is there."""
        return await self._store(records, lambda _index, _head: True)

    async def _store(self, records: Sequence[ResultRecord], is_wanted: Callable[[int, Head], bool]) -> list[bool]:
        kept = [False] * len(records)
        left = list(range(len(records)))
        while left:
            turn: dict[str, int] = {}
            for index in left:
                turn.setdefault(records[index].id, index)  # of one id, one after the other
            over = await self._store_once({index: records[index] for index in turn.values()}, kept, is_wanted)
            left = [index for index in left if index not in over]
        return kept

    async def _store_once(
        self, records: Mapping[int, ResultRecord], kept: list[bool], is_wanted: Callable[[int, Head], bool]
    ) -> set[int]:
        """Try once; return the places of those that are decided."""
        over: set[int] = set()
        await self._learn([record.id for record in records.values() if self._is_unsure(record)])
        sent: list[tuple[int, ResultRecord, Head]] = []
        for place, record in records.items():
            head = self._heads.get(record.id, Head())
            if head.lets(record) and is_wanted(place, head):
                sent.append((place, record, head))
            else:
                over.add(place)
        await self._hold([self._holder(record) for _, record, _ in sent if _is_held(record)])
        answers = await self._server.ask([self._request(record, head.revision) for _, record, head in sent])
        overtaken: list[str] = []
        moved: list[Request] = []
        for (place, record, head), (headers, body) in zip(sent, answers, strict=True):
            try:
                check(headers, body, self.stream)
            except Fault as fault:
                if fault.code != _OVERTAKEN:
                    raise
                overtaken.append(record.id)
                continue
            over.add(place)
            kept[place] = True
            moved += self._after(record, head, body)
        await self._learn(overtaken)
        await self._hold(moved)
        return over

    def _is_unsure(self, record: ResultRecord) -> bool:
        """Something is there, most likely; or it seems that it may not follow, which only what is there can say."""
        head = self._heads.get(record.id)
        if head is None:
            return record.hop > 0 or record.delivery_count > 1
        return not head.lets(record)

    async def _learn(self, ids: Sequence[str]) -> None:
        if len(self._heads) > _KNOWN:
            self._heads.clear()
        for task_id, head in zip(ids, await self.heads(ids), strict=True):
            self._heads[task_id] = head

    def _request(self, record: ResultRecord, revision: int) -> Request:
        lives = "" if record.ttl is None else f"Nats-TTL: {max(1, ceil(record.ttl))}s\r\n"
        headers = f"NATS/1.0\r\nNats-Expected-Last-Subject-Sequence: {revision}\r\n{lives}\r\n"
        return self.subject(record.id), headers.encode(), write(record)

    def _after(self, record: ResultRecord, former: Head, answer: bytes) -> Iterable[Request]:
        """Take note of what was written; what else is to be written about who holds it."""
        if record.state.is_terminal:
            self._heads.pop(record.id, None)
            self._claims.pop(record.id, None)
        else:
            self._heads[record.id] = Head(sequence_in(answer), record)
        was_held = former.record is not None and former.record.holder is not None
        if was_held and not _is_held(record):
            yield self.holding(record.id), PURGE, b""

    def _holder(self, record: ResultRecord) -> Request:
        """Written before the record: a record that nobody finds would never be ended."""
        return self.holding(record.id), b"", token(record.holder or "").encode()

    async def _hold(self, requests: Sequence[Request]) -> None:
        for headers, body in await self._server.ask(requests):
            check(headers, body, self.stream)

    async def forget(self, ids: Sequence[str]) -> int:
        """Remove the records of *ids*; return how many there were."""
        there = [i for i, head in zip(ids, await self.heads(ids), strict=True) if head.record is not None]
        for task_id in there:
            self._heads.pop(task_id, None)
        await self._hold([(self.subject(task_id), PURGE, b"") for task_id in there])
        return len(there)


def _is_held(record: ResultRecord) -> bool:
    return record.holder is not None and not record.state.is_terminal


def id_of(headers: bytes) -> str:
    """The id, or name, that a key ends with."""
    return plain(subject_of(headers).rpartition(".")[2])
