"""The connection: nats-py's client, with many requests under way at once and no object per message.

nats-py makes a future, a task's turn and a parsed header for each message; here a batch of requests has one future, and
headers stay bytes until somebody needs one. It is built on the methods that nats-py's client calls on itself.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, final

from nats import errors
from nats.aio.client import Client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from nats.aio.subscription import Subscription

__all__ = ["Answer", "ConnectionLost", "NotPermitted", "Pull", "Request", "Wire", "status_of"]

Answer = tuple[bytes, bytes]
"""Headers (empty if there are none) and body."""
Request = tuple[str, bytes, bytes]
"""Subject, headers (empty if there are none) and body."""
Hear = "Callable[[str, str, bytes, bytes], object]"
"""Told subject, reply, headers and body of each message."""

_VIOLATION = "permissions violation for "
_STATUS = b"NATS/1.0 "
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class ConnectionLost(Exception):  # noqa: N818 - it names what happened
    """The connection went away, or never came: what was asked may have happened."""


class NotPermitted(Exception):  # noqa: N818 - it names what happened
    """The server does not let this user do it."""


def status_of(headers: bytes) -> int:
    """The code of a status message; 0 if it is none.

    >>> status_of(b"NATS/1.0 404 No Messages"), status_of(b"NATS/1.0"), status_of(b"")
    (404, 0, 0)
    """
    if not headers.startswith(_STATUS):
        return 0
    code = headers[9:12]
    return int(code) if code.isdigit() else 0


class _Batch:
    """Requests that were sent together, each to be answered once."""

    __slots__ = ("answers", "done", "left")

    def __init__(self, count: int) -> None:
        self.answers: list[Any] = [None] * count
        self.left = count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, index: int, headers: bytes, body: bytes) -> bool:
        self.answers[index] = (headers, body)
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)
        return True

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


@final
class Pull:
    """A request that is answered by up to *limit* messages, and a status if there are not so many."""

    __slots__ = ("done", "limit", "messages", "status")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.messages: list[Answer] = []
        self.status = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(self, _index: int, headers: bytes, body: bytes) -> bool:
        """Whether that was the last one."""
        if status_of(headers):
            self.status = headers
        else:
            self.messages.append((headers, body))
        is_over = bool(self.status) or len(self.messages) >= self.limit
        if is_over and not self.done.done():
            self.done.set_result(None)
        return is_over

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


class Wire(Client):
    """One connection, for one event loop. *changed* is told of every loss and return of it."""

    def __init__(self, changed: Callable[[bool], object]) -> None:
        super().__init__()
        self._changed = changed
        self._hears: dict[int, Any] = {}
        self._calls: dict[str, tuple[_Batch | Pull, int, str]] = {}
        self._count = 0
        self._prefix = ""
        self.on_loss: dict[str, Callable[[], object]] = {}
        """Called when the connection is lost."""
        self.attempts: list[Exception] = []
        """Errors since the connection was lost, or since the first try; only the last ones."""

    @property
    def version(self) -> tuple[int, ...]:
        """The major and minor version of the server."""
        known = self.connected_server_version
        return known.major, known.minor

    async def begin(self, servers: list[str], **options: Any) -> None:
        """Connect, so that servers of which none answers are noticed at once; later, reconnect for ever.

        Raises:
            ConnectionLost: no server let us in.
        """
        self._first_tries = len(servers)
        try:
            await self.connect(
                servers,
                error_cb=self._hear_error,
                disconnected_cb=self._hear_loss,
                reconnected_cb=self._hear_return,
                max_reconnect_attempts=-1,
                **options,
            )
        except (OSError, errors.Error, TimeoutError) as error:
            await self._give_up()
            raise ConnectionLost(f"{type(error).__name__}: {error}") from error
        except BaseException:
            await self._give_up()
            raise
        self._first_tries = 0
        self._prefix = f"{self._inbox_prefix.decode()}.{os.urandom(9).hex()}."
        await self.listen(f"{self._prefix}*", self._hear_answer)

    async def _give_up(self) -> None:
        """Close; what a server that refused us does to the connection meanwhile is not why we were refused."""
        self._first_tries = 0
        await self.close()

    # --- what nats-py tells ------------------------------------------------------------------------

    async def _hear_error(self, error: Exception) -> None:
        self.attempts = [*self.attempts[-9:], error]
        text = str(error)
        if _VIOLATION in text:
            self._refuse(text)
        elif self._first_tries and len(self.attempts) >= self._first_tries:
            raise error

    def _refuse(self, text: str) -> None:
        """The server says which subject it was; all of it in lower case."""
        kind, _, subject = text.partition(_VIOLATION)[2].partition(" to ")
        subject = subject.split('"')[1] if '"' in subject else subject
        for key, (call, _, about) in list(self._calls.items()):
            if kind != "publish" or about.lower() == subject:
                del self._calls[key]
                call.fail(NotPermitted(f"{kind} to {about or subject}"))

    async def _hear_loss(self) -> None:
        # What was not sent yet must not go out after a return: a lease may have ended meanwhile.
        self._pending.clear()
        self._pending_data_size = 0
        self._fail_all(ConnectionLost("the connection was lost"))
        losses, self.on_loss = self.on_loss, {}
        for tell in losses.values():
            tell()
        self._changed(False)

    async def _hear_return(self) -> None:
        self.attempts = []
        self._changed(True)

    def _fail_all(self, error: Exception) -> None:
        calls, self._calls = self._calls, {}
        for call, _, _ in calls.values():
            call.fail(error)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        hear = self._hears.get(sid)
        if hear is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            hear(subject.decode(), reply.decode(), headers or b"", data)

    def _hear_answer(self, subject: str, reply: str, headers: bytes, body: bytes) -> None:
        key = subject[len(self._prefix) :]
        entry = self._calls.get(key)
        if entry is None:
            return
        call, index, _ = entry
        if call.take(index, headers, body):
            del self._calls[key]

    # --- asking ------------------------------------------------------------------------------------

    async def listen(self, subject: str, hear: Callable[[str, str, bytes, bytes], object]) -> Subscription:
        """Tell *hear* of each message on *subject*, until the subscription is ended."""
        subscription = await self.subscribe(subject)
        self._hears[subscription._id] = hear  # noqa: SLF001 - the number by which messages of it come
        return subscription

    async def stop(self, subscription: Subscription) -> None:
        """End a subscription; what comes after that is nobody's."""
        self._hears.pop(subscription._id, None)  # noqa: SLF001 - as in `listen`
        if self.is_connected:
            await subscription.unsubscribe()
        else:
            self._subs.pop(subscription._id, None)  # noqa: SLF001 - and so it is not asked for anew

    async def leave(self, subscription: Subscription) -> None:
        """End a subscription; return once nothing can come to it any more."""
        await subscription.unsubscribe()
        try:
            await self.flush()
        except (errors.Error, TimeoutError) as error:
            raise ConnectionLost(str(error)) from error
        finally:
            self._hears.pop(subscription._id, None)  # noqa: SLF001 - as in `listen`

    async def ask(self, requests: Sequence[Request], timeout: float, unanswered: Answer | None = None) -> list[Answer]:
        """The answers to *requests*, all under way at once; *unanswered* stands for those that get none within *timeout* s.

        Raises:
            ConnectionLost: one of them was not answered, and nothing may stand for its answer; or the connection went away.
            NotPermitted: the user must not ask that.
        """
        batch = _Batch(len(requests))
        keys = []
        for index, (subject, headers, body) in enumerate(requests):
            key = self._key()
            keys.append(key)
            self._calls[key] = (batch, index, subject)
            await self._put(subject, self._prefix + key, headers, body)
        try:
            await self._flush_pending()
            async with asyncio.timeout(timeout):
                await batch.done
        except TimeoutError as error:
            if unanswered is None:
                raise ConnectionLost(f"no answer within {timeout:g} s") from error
        finally:
            if batch.left:
                for key in keys:
                    self._calls.pop(key, None)
        if batch.left and unanswered is not None:
            return [answer or unanswered for answer in batch.answers]
        return batch.answers

    async def pull(self, subject: str, body: bytes, limit: int) -> Pull:
        """Ask for up to *limit* messages."""
        pull, key = Pull(limit), self._key()
        self._calls[key] = (pull, 0, subject)
        await self._put(subject, self._prefix + key, b"", body)
        await self._flush_pending()
        return pull

    async def tell(self, subject: str, reply: str, body: bytes) -> None:
        """Send one message; answers go to *reply*."""
        await self._put(subject, reply, b"", body)
        await self._flush_pending()

    def _key(self) -> str:
        self._count += 1
        return format(self._count, "x")

    def _put(self, subject: str, reply: str, headers: bytes, body: bytes) -> Awaitable[None]:
        if not self.is_connected:
            raise ConnectionLost("the connection is lost at the moment")
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(body)
        if headers:
            head = f"HPUB {subject} {reply} {len(headers)} {len(headers) + len(body)}\r\n".encode()
            return self._send_command(b"".join((head, headers, body, b"\r\n")))
        return self._send_command(b"".join((f"PUB {subject} {reply} {len(body)}\r\n".encode(), body, b"\r\n")))
