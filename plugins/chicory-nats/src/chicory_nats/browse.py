"""Looking at messages where they are, without taking them: by their places in the stream."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, final

import msgspec
from msgspec import Struct

from chicory.plugin import QueuedMessage, QueuePage
from chicory_nats.names import envelope_of, header, seconds_of, token
from chicory_nats.reading import part_of, sequence_of, subject_of
from chicory_nats.server import Fault, check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from chicory_nats.consumers import Durables
    from chicory_nats.names import Names, seconds_of
    from chicory_nats.server import Server

__all__ = ["Browser", "Found"]

_CHUNK = 200
_NO_MESSAGE = 10043, 10037, 10057
"""Deleting what is not there."""
_encode = msgspec.json.Encoder().encode


@final
class Found(Struct, frozen=True):
    """A message, and where it is."""

    seen: QueuedMessage
    sequence: int

    @property
    def is_free(self) -> bool:
        """No consumer has it."""
        return self.seen.state != "running"

    @property
    def hop(self) -> int:
        return self.seen.envelope.hop


@final
class Browser:
    """Reads the stream directly. To look for an id is to read the whole queue: the stream has no index of ids."""

    def __init__(self, server: Server, names: Names, durables: Durables) -> None:
        self._server, self._names, self._durables = server, names, durables

    async def queues(self) -> set[str]:
        """All that hold something."""
        names = self._names
        kinds = [await self._durables.subjects(kind) for kind in (names.all_ready(), names.all_delayed())]
        return {names.place_of(subject)[0] for subjects in kinds for subject in subjects}

    async def page(self, queue: str, limit: int, after: str | None) -> QueuePage:
        """The cursor says which kind is being read, and behind which sequence."""
        kind, _, behind = (after or "q:0").partition(":")
        found: list[Found] = []
        if kind == "q":
            found = await self._read(queue, self._names.all_ready(queue), int(behind), limit)
            if len(found) == limit:
                return QueuePage(messages=[item.seen for item in found], cursor=f"q:{found[-1].sequence}")
            behind = "0"
        later = await self._read(queue, self._names.all_delayed(queue), int(behind), limit - len(found))
        messages = [item.seen for item in (*found, *later)]
        return QueuePage(messages=messages, cursor=f"d:{later[-1].sequence}" if len(messages) == limit and later else None)

    async def find(self, queue: str, ids: Sequence[str]) -> dict[str, Found]:
        """Those of *ids* that the queue holds; of an id that is there twice, the later one."""
        wanted = set(ids)
        found: dict[str, Found] = {}
        async for item in self._all(queue, self._names.all_ready(queue)):
            if item.seen.envelope.id in wanted:
                _keep(found, item)
        for message_id in wanted:
            pattern = f"{self._names.space}.d.{token(queue)}.*.{token(message_id)}.*"
            async for item in self._all(queue, pattern):
                _keep(found, item)
        return found

    async def remove(self, items: Sequence[Found]) -> set[str]:
        """Delete these; return the ids of those that were still there."""
        subject = f"$JS.API.STREAM.MSG.DELETE.{self._names.stream}"
        requests = [(subject, b"", _encode({"seq": item.sequence, "no_erase": True})) for item in items]
        gone = set()
        for item, (headers, body) in zip(items, await self._server.ask(requests), strict=True):
            try:
                check(headers, body, self._names.stream)
            except Fault as fault:
                if fault.code not in _NO_MESSAGE:
                    raise
            else:
                gone.add(item.seen.envelope.id)
        return gone

    async def _all(self, queue: str, pattern: str) -> AsyncIterator[Found]:
        behind = 0
        while part := await self._read(queue, pattern, behind, _CHUNK):
            for item in part:
                yield item
            behind = part[-1].sequence

    async def _read(self, queue: str, pattern: str, behind: int, limit: int) -> list[Found]:
        """Up to *limit* messages behind a sequence."""
        if limit <= 0:
            return []
        delivered: dict[int, int] = {}
        found = []
        for headers, data in await part_of(self._server, self._names.stream, pattern, behind, limit):
            subject, sequence = subject_of(headers), sequence_of(headers)
            _, level = self._names.place_of(subject)
            envelope = envelope_of(queue, level, sequence, (headers, data))
            at = seconds_of(header(headers, b"Nats-Time-Stamp"))
            if subject.startswith(f"{self._names.space}.d."):
                at = at if envelope.due is None else envelope.due.timestamp()
                state = "delayed"
            else:
                if level not in delivered:
                    info = await self._durables.read(queue, level)
                    delivered[level] = 0 if info is None else info["delivered"]["stream_seq"]
                state = "running" if sequence <= delivered[level] else "ready"
            seen = QueuedMessage(envelope=envelope, state=state, since=datetime.fromtimestamp(at, UTC))
            found.append(Found(seen, sequence))
        return found


def _keep(found: dict[str, Found], item: Found) -> None:
    message_id = item.seen.envelope.id
    if message_id not in found or found[message_id].hop <= item.hop:
        found[message_id] = item
