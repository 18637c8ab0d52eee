"""An opened broker and backend on one event loop, and the way of messages out to them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self, final

from msgspec import Struct

from chicory.backend import store_then_settle
from chicory.batch import Batcher
from chicory.codec import encode
from chicory.errors import CapabilityError, PayloadTooLargeError
from chicory.events import tell
from chicory.faultpoints import FaultPoint, reach
from chicory.message import Event
from chicory.middleware import PublishMiddleware, compose_publish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from chicory.backend import Backend
    from chicory.broker import Broker
    from chicory.clock import Clock
    from chicory.codec import Arguments
    from chicory.message import Envelope, TaskMessage
    from chicory.offers import EventSink, Listener
    from chicory.task import Call

__all__ = ["Client", "Connection", "Outgoing"]

_BATCH = 500
_ENVELOPES = 1000


@final
class Connection:
    """A broker and a backend, opened together and joined."""

    def __init__(self, broker: Broker, backend: Backend | None) -> None:
        self.broker = broker
        self.backend = backend
        self.joined = (backend.join(broker) if backend is not None else None) or store_then_settle(broker, backend)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.broker)
            if self.backend is not None:
                await stack.enter_async_context(self.backend)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()


@final
class Outgoing(Struct, frozen=True, kw_only=True):
    """What the way out needs to know of the app: made once."""

    layers: tuple[PublishMiddleware, ...]
    sinks: tuple[EventSink | Listener, ...]
    """Those that want to hear of what is published."""
    clock: Clock
    max_bytes: int
    rewrite: Callable[[TaskMessage], Arguments]
    """The arguments of a message that a layer has replaced."""


@final
class Client:
    """Publishes for one event loop. Calls that wait at the same time travel together."""

    def __init__(self, connection: Connection, outgoing: Outgoing, lifespan: Callable[[], Any]) -> None:
        self.connection = connection
        self._outgoing = outgoing
        self._lifespan = lifespan
        self._batcher: Batcher[Sequence[Envelope], None] = Batcher(self._flush, limit=_BATCH)
        self._chain = compose_publish(outgoing.layers, self._inside_layers)
        self._calls: dict[str, Call] = {}
        """Those that go through the layers now, by id; of several with one id the last: the others are written anew."""
        self._lock = asyncio.Lock()
        self._stack = AsyncExitStack()
        self.is_open = False

    async def open(self) -> None:
        """Connect, unless that is done; safe to call from many tasks at once."""
        async with self._lock:
            if self.is_open:
                return
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.connection)
                await stack.enter_async_context(self._lifespan())
                self._stack = stack.pop_all()
            self.is_open = True

    async def close(self) -> None:
        """Send what waits to be sent, and disconnect. Safe to repeat."""
        async with self._lock:
            if self.is_open:
                self.is_open = False
                await self._batcher.drain()
                await self._stack.aclose()

    async def send(self, calls: Sequence[Call]) -> None:
        """Publish *calls*; durable once this returns. Layers around publishing run here, in the context of the caller.

        Raises:
            PayloadTooLargeError: one is larger than the limit; none of these calls was sent.
            CapabilityError: one is to start later, and the broker cannot hold messages back.
        """
        limit = self._outgoing.max_bytes
        if self._outgoing.layers:
            await self._through_layers(calls)
        else:
            await self._hand_over(
                [call.message for call in calls], [encode(call.message, call.arguments, limit=limit) for call in calls]
            )

    async def _through_layers(self, calls: Sequence[Call]) -> None:
        self._calls.update((call.message.id, call) for call in calls)
        try:
            await self._chain([call.message for call in calls])
        finally:
            for call in calls:
                self._calls.pop(call.message.id, None)

    async def _inside_layers(self, messages: Sequence[TaskMessage]) -> None:
        await self._hand_over(messages, [self._encode(message) for message in messages])

    def _encode(self, message: TaskMessage) -> Envelope:
        """The envelope of a message that a layer may have replaced; its arguments are written again only if they changed."""
        original = self._calls.get(message.id)
        is_same_call = (
            original is not None and message.args is original.message.args and message.kwargs is original.message.kwargs
        )
        arguments = original.arguments if is_same_call and original else self._outgoing.rewrite(message)
        return encode(message, arguments, limit=self._outgoing.max_bytes)

    async def _hand_over(self, messages: Sequence[TaskMessage], envelopes: Sequence[Envelope]) -> None:
        self._check(messages, envelopes)
        parts = [envelopes[start : start + _ENVELOPES] for start in range(0, len(envelopes), _ENVELOPES)]
        if len(parts) == 1:
            await self._batcher.add(parts[0])
        else:
            await asyncio.gather(*(self._batcher.add(part) for part in parts))
        self._tell(messages)

    def _check(self, messages: Sequence[TaskMessage], envelopes: Sequence[Envelope]) -> None:
        capabilities, broker = self.connection.broker.capabilities, self.connection.broker
        if not capabilities.delayed and any(envelope.due for envelope in envelopes):
            hint = "send without countdown and eta, or choose another broker"
            raise CapabilityError("delayed messages", broker.address, hint)
        limit = capabilities.max_message_bytes
        if limit is not None:
            for message, envelope in zip(messages, envelopes, strict=True):
                if len(envelope.body) > limit:
                    raise PayloadTooLargeError(f"the message for task {message.name!r}", len(envelope.body), limit)

    async def _flush(self, groups: list[Sequence[Envelope]]) -> list[None]:
        await self._publish([envelope for group in groups for envelope in group])
        return [None] * len(groups)

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        for start in range(0, len(envelopes), _ENVELOPES):
            reach(FaultPoint.BEFORE_PUBLISH)
            await self.connection.joined.publish(envelopes[start : start + _ENVELOPES])
            reach(FaultPoint.AFTER_PUBLISH)

    def _tell(self, messages: Sequence[TaskMessage]) -> None:
        if not self._outgoing.sinks:
            return
        now = self._outgoing.clock.now()
        for message in messages:
            event = Event(kind="task.published", at=now, task_id=message.id, task=message.name, queue=message.queue)
            tell(self._outgoing.sinks, event)
