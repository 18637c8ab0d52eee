"""What crosses the border between a worker and its child processes: length-prefixed msgpack, never pickles."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import TYPE_CHECKING, Any, final

import msgspec
from msgspec import Struct, field

from chicory.codec import Arguments
from chicory.errors import RemoteError, RetryError
from chicory.home import Home
from chicory.launch import Launch
from chicory.message import Delivery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = [
    "Answer",
    "Import",
    "Order",
    "Progressed",
    "Raised",
    "Ready",
    "Retry",
    "Returned",
    "Run",
    "Setup",
    "frame",
    "read_answer",
    "read_order",
]

_LENGTH = struct.Struct(">Q")


@final
class Setup(Struct, frozen=True, kw_only=True, tag=True):
    """The first order: what a child needs to know before it imports anything of the user's."""

    worker_id: str
    path: list[str]
    """The worker's ``sys.path``."""
    launch: Launch
    log_level: str
    log_format: str
    memory_bytes: int | None = None


@final
class Import(Struct, frozen=True, kw_only=True, tag=True):
    """Make this task ready to run. Answered by `Ready` or `Raised`."""

    home: Home


@final
class Run(Struct, frozen=True, kw_only=True, tag=True):
    """Run the task of this delivery. Answered by `Returned` or `Raised`, and by any number of `Progressed` before."""

    task: str
    delivery: Delivery
    headers: dict[str, str]
    """Those of the message as the layers in the worker have left them."""
    started_at: datetime | None
    deadline: datetime | None
    keeps_results: bool
    carried: dict[str, dict[str, str]] = field(default_factory=dict)
    """What contexts of plugins say, by their names (see ``ChildContext``)."""


@final
class Ready(Struct, frozen=True, kw_only=True, tag=True):
    """The task can be run."""


@final
class Progressed(Struct, frozen=True, kw_only=True, tag=True):
    """The task says how far it is."""

    done: float
    total: float


@final
class Returned(Struct, frozen=True, kw_only=True, tag=True):
    """The task has returned; without *result* where nobody wants it."""

    result: Arguments | None = None


@final
class Retry(Struct, frozen=True, kw_only=True):
    """What ``ctx.retry()`` was given."""

    countdown: float | None = None
    cause: str | None = None


@final
class Raised(Struct, frozen=True, kw_only=True, tag=True):
    """It raised: see ``RemoteError`` for *kind*, *family*, *text* and *traceback*.

    *retry* is set where it asked to be run again; then the rest describes why, if it said why.
    """

    kind: str
    family: list[str] = field(default_factory=list)
    text: str
    traceback: str | None = None
    is_final: bool = False
    retry: Retry | None = None

    def exception(self) -> RemoteError | RetryError:
        """The error as the worker's layers get it."""
        remote = RemoteError.of(self.kind, tuple(self.family), self.text, self.traceback)
        if self.retry is None:
            return remote
        asked = RetryError(self.retry.countdown, self.retry.cause)
        if self.traceback:
            asked.add_note(self.traceback)
        if self.retry.cause is not None:
            asked.__cause__ = remote
        return asked


Order = Setup | Import | Run
Answer = Ready | Progressed | Returned | Raised

_encode = msgspec.msgpack.Encoder().encode
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def frame(said: Order | Answer) -> bytes:
    """The bytes of an order or an answer."""
    body = _encode(said)
    return _LENGTH.pack(len(body)) + body


async def read_answer(read: Callable[[int], Awaitable[bytes]]) -> Answer:
    """The next answer; *read* returns exactly as many bytes as it is asked for."""
    (length,) = _LENGTH.unpack(await read(_LENGTH.size))
    return _answers.decode(await read(length))


def read_order(read: Callable[[int], Any]) -> Order | None:
    """The next order; *read* blocks, and returns fewer bytes than it is asked for only at the end. None: there is no more."""
    head = read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = read(length)
    return _orders.decode(body) if len(body) == length else None
