"""Where messages come to that were asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

import msgspec

from chicory_nats.wire import ConnectionLost, status_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nats.aio.subscription import Subscription

    from chicory_nats.wire import Wire

__all__ = ["Box", "Message"]

Message = tuple[str, str, bytes, bytes]
"""Subject, receipt, headers, body."""
_BILLION = 1_000_000_000
_WITHDRAWN = 409
_encode = msgspec.json.Encoder().encode


@final
class Box:
    """A subscription of its own: a message that is delivered says where it was published, not which request it answers.

    Without the subscription the server takes its requests as withdrawn.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._subject = wire.new_inbox()
        self._subscription: Subscription | None = None
        self.messages: list[Message] = []
        self.credit = 0
        """How many messages, or words that there are none, may still come."""
        self._limit = 1
        self.status = 0
        self.abandoned: Callable[[Message], object] | None = None
        """Gets what comes once nobody waits for it."""
        self._news: asyncio.Future[None] | None = None

    @classmethod
    async def open(cls, wire: Wire) -> Box:
        box = cls(wire)
        box._subscription = await wire.listen(box._subject, box._hear)
        return box

    async def ask(self, subjects: Sequence[str], limit: int, seconds: float) -> None:
        """Ask one for up to *limit* messages, or several for one each; at once, or as they come within *seconds*."""
        self.status, self._limit, self.credit = 0, limit, limit if len(subjects) == 1 else len(subjects)
        self._news = asyncio.get_running_loop().create_future()
        self._wire.on_loss[self._subject] = self._lose
        how = {"no_wait": True} if seconds <= 0 else {"expires": round(seconds * _BILLION)}
        body = _encode({"batch": limit, **how})
        for subject in subjects:
            await self._wire.tell(subject, self._subject, body)

    async def something(self) -> None:
        """Return when something has come that was waited for, or all has that there was."""
        assert self._news is not None, "nothing was asked for"  # noqa: S101
        await self._news

    def _lose(self) -> None:
        self.credit = 0
        if self._news is not None and not self._news.done():
            self._news.set_exception(ConnectionLost("the connection was lost"))
            self._news.exception()

    def _hear(self, subject: str, reply: str, headers: bytes, body: bytes) -> None:
        status = status_of(headers)
        if not status:
            self.credit -= 1
            if self.abandoned is not None:
                self.abandoned((subject, reply, headers, body))
            else:
                self.messages.append((subject, reply, headers, body))
        else:
            self.credit -= 1 if self._limit == 1 else self.credit
            self.status = max(self.status, status)
        is_over = not self.credit or (self.messages and self._limit == 1) or self.status >= _WITHDRAWN
        if is_over and self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def close(self) -> None:
        """Return when nothing can come any more."""
        self._wire.on_loss.pop(self._subject, None)
        if self._subscription is None or not self._wire.is_connected:
            return
        try:
            await self._wire.leave(self._subscription)
        except ConnectionLost:
            return  # so nothing can
