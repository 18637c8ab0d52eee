"""Reading a stream directly, without a consumer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chicory_nats.names import header
from chicory_nats.server import check
from chicory_nats.wire import status_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from chicory_nats.server import Server
    from chicory_nats.wire import Answer

__all__ = ["all_of", "is_marker", "part_of", "sequence_of", "subject_of"]

_CHUNK = 200
_END = frozenset({204, 404})
_encode = msgspec.json.Encoder().encode


def subject_of(headers: bytes) -> str:
    return header(headers, b"Nats-Subject")


def sequence_of(headers: bytes) -> int:
    return int(header(headers, b"Nats-Sequence"))


def is_marker(headers: bytes) -> bool:
    """A key-value bucket says so of what is no more."""
    return b"\r\nKV-Operation: " in headers or b"\r\nNats-Marker-Reason: " in headers


async def part_of(server: Server, stream: str, pattern: str, behind: int, limit: int = _CHUNK) -> list[Answer]:
    """Up to *limit* messages on subjects that *pattern* matches, behind a place in the stream."""
    wire = await server.wire()
    body = _encode({"seq": behind + 1, "next_by_subj": pattern, "batch": limit})
    pull = await wire.pull(f"$JS.API.DIRECT.GET.{stream}", body, limit=limit + 1)  # and the end of it
    await server.await_pull(pull)
    if (code := status_of(pull.status)) not in _END:
        check(pull.status if code != 404 else b"", b"", stream)  # noqa: PLR2004 - as the server says it
    return pull.messages


async def all_of(server: Server, stream: str, pattern: str) -> AsyncIterator[Answer]:
    """All messages on subjects that *pattern* matches, in order."""
    behind = 0
    while part := await part_of(server, stream, pattern, behind):
        for message in part:
            yield message
        behind = sequence_of(part[-1][0])
