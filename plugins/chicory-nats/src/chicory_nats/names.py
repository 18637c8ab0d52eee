"""How things are called on a server: subjects, streams, consumers; and the headers of messages."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, final

from msgspec import Struct

from chicory.plugin import Envelope

if TYPE_CHECKING:
    from chicory_nats.wire import Answer

__all__ = [
    "TOP",
    "Names",
    "delay_headers",
    "envelope_of",
    "header",
    "made_of",
    "message_headers",
    "plain",
    "rfc3339",
    "seconds_of",
    "token",
]

TOP = 9
_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_SAFE = re.compile(r"[A-Za-z0-9_-]+").fullmatch
_ESCAPED = re.compile(r"=([0-9A-F]{2})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_NO_DIGIT = re.compile(r"[^0-9]")
_OURS = b"\r\nChicory: "


def token(name: str) -> str:
    """*name* as one token of a subject, whatever is in it.

    >>> token("mail.dlq"), token("order 17"), token("")
    ('mail=2Edlq', 'order=2017', '=')
    """
    if _SAFE(name):
        return name
    return _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], name.encode("utf-8", "surrogatepass")).decode() or "="


def plain(name: str) -> str:
    """What `token` was made of.

    >>> plain("mail=2Edlq"), plain("=")
    ('mail.dlq', '')
    """
    if "=" not in name:
        return name
    if name == "=":
        return ""
    return bytes(_unescaped(name)).decode("utf-8", "surrogatepass")


def _unescaped(name: str) -> bytes:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name).encode("latin-1")


@final
class Names(Struct, frozen=True):
    """The names of one namespace."""

    space: str

    @property
    def stream(self) -> str:
        return self.space

    @property
    def consumers(self) -> str:
        """The bucket of the consumers that live."""
        return f"{self.space}-consumers"

    @property
    def results(self) -> str:
        """The bucket of records and heartbeats."""
        return f"{self.space}-results"

    def ready(self, queue: str, level: int) -> str:
        return f"{self.space}.q.{token(queue)}.{level}"

    def all_ready(self, queue: str | None = None) -> str:
        return f"{self.space}.q.>" if queue is None else f"{self.space}.q.{token(queue)}.*"

    def delayed(self, envelope: Envelope) -> str:
        """A schedule has a subject of its own."""
        level = min(max(envelope.priority, 0), TOP)
        return f"{self.space}.d.{token(envelope.queue)}.{level}.{token(envelope.id)}.{envelope.hop}"

    def all_delayed(self, queue: str | None = None) -> str:
        return f"{self.space}.d.>" if queue is None else f"{self.space}.d.{token(queue)}.>"

    def place_of(self, subject: str) -> tuple[str, int]:
        """The queue and level of a subject of either kind."""
        _, _, queue, level, *_ = subject.split(".")
        return plain(queue), int(level)

    def consumer(self, queue: str, level: int, made: str) -> str:
        """The one that everybody reads a level with; *made* says of which stream (see `made_of`)."""
        return f"q-{token(queue)}-{level}-{made}"

    def counter(self, queue: str) -> str:
        """The consumer that nobody reads with: its server counts what is delayed."""
        return f"d-{token(queue)}"


def message_headers(envelope: Envelope) -> bytes:
    """What goes along with a body."""
    due = "-" if envelope.due is None else str((envelope.due - _EPOCH) // _MICRO)
    id_ = token(envelope.id)
    key = f"{id_}:{envelope.hop}" if envelope.hop else id_
    return f"NATS/1.0\r\nNats-Msg-Id: {key}\r\nChicory: {id_} {envelope.hop} {due}\r\n\r\n".encode()


def delay_headers(envelope: Envelope, target: str) -> bytes:
    """The same, for a message that its server puts to *target* when it is due."""
    assert envelope.due is not None, "what is not delayed needs no schedule"  # noqa: S101
    when = f"Nats-Schedule: @at {rfc3339(envelope.due)}\r\nNats-Schedule-Target: {target}\r\n\r\n"
    return message_headers(envelope)[:-2] + when.encode()


def made_of(created: str) -> str:
    """When a stream was made, as a part of a name.

    A stream that is made anew counts its messages from 1 again. What somebody still holds of the former one must not be taken
    for a message of the new one: its acknowledgement goes to a consumer that is gone.

    >>> made_of("2026-11-26T00:27:00.020028669Z")
    '20261126002700020028669'
    """
    return _NO_DIGIT.sub("", created)


def rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def envelope_of(queue: str, level: int, sequence: int, message: Answer) -> Envelope:
    """The envelope of a message; one that a stranger has put there gets an id by its place."""
    headers, body = message
    begin = headers.find(_OURS) if headers else -1
    if begin < 0:
        return Envelope(id=f"nats-{sequence}", queue=queue, body=body, priority=level)
    begin += len(_OURS)
    id_, hop, due = headers[begin : headers.index(b"\r\n", begin)].decode().split(" ")
    when = None if due == "-" else _EPOCH + timedelta(microseconds=int(due))
    return Envelope(id=plain(id_), queue=queue, body=body, due=when, priority=level, hop=int(hop))


def header(headers: bytes, name: bytes) -> str:
    """One header's value; empty if it is not there."""
    begin = headers.find(b"\r\n" + name + b": ")
    if begin < 0:
        return ""
    begin += len(name) + 4
    return headers[begin : headers.index(b"\r\n", begin)].decode("utf-8", "replace")


def seconds_of(text: str) -> float:
    """A server's time as seconds; it may have more digits than Python reads."""
    head, _, digits = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{digits[:6]:0<6}+00:00").timestamp()
