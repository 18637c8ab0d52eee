"""The layer around publishing: a span that the messages carry on, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

from msgspec.structs import replace
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from chicory.errors import BrokerConnectionError
from chicory.plugin import PublishNext, TaskMessage
from chicory_otel import conventions as names
from chicory_otel.failing import is_traced
from chicory_otel.propagation import Unsampled, extracted, injected
from chicory_otel.rules import LINK_ONLY, MOST_CREATE_SPANS, error_type

if TYPE_CHECKING:
    from chicory_otel.instruments import Instruments

__all__ = ["PublishTracing"]


@final
class PublishTracing:
    """One PRODUCER span for one message; for more, a CLIENT span around all and a span of its own for each.

    Where the caller's trace is not sampled there is no span: its context is carried on, so that it stays so.
    """

    def __init__(self, tracer: Tracer, instruments: Instruments, place: dict[str, str | int], *, semconv: bool) -> None:
        self._tracer, self._instruments, self._place, self._semconv = tracer, instruments, place, semconv
        self._attributes: dict[tuple[str, str | None], dict[str, Any]] = {}

    async def __call__(self, messages: Sequence[TaskMessage], proceed: PublishNext) -> None:
        span, sent = self._opened(messages)
        began = time.perf_counter()
        try:
            await proceed(sent)
        except BaseException as error:
            self._closed(span, sent, began, error)
            raise
        self._closed(span, sent, began, None)

    # --- before --------------------------------------------------------------------------------

    def _opened(self, messages: Sequence[TaskMessage]) -> tuple[Span | None, Sequence[TaskMessage]]:
        try:
            return self._open(messages)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises, the messages are sent
            self._instruments.failures.note("publish", error)
            return None, messages

    def _open(self, messages: Sequence[TaskMessage]) -> tuple[Span | None, Sequence[TaskMessage]]:
        ambient = context.get_current()
        current = trace.get_current_span(ambient)
        if isinstance(current, Unsampled):
            return None, [_carrying(message, ambient, current) for message in messages]
        parent = current.get_span_context()
        if (parent.is_valid and not parent.trace_flags.sampled) or not is_traced():
            return None, [_carrying(message, ambient, parent) for message in messages]
        if len(messages) == 1:
            return self._open_one(messages[0], ambient, parent)
        return self._open_many(messages, ambient)

    def _open_one(
        self, message: TaskMessage, ambient: Context, parent: SpanContext
    ) -> tuple[Span | None, Sequence[TaskMessage]]:
        if not parent.is_valid and "traceparent" in message.headers:
            ambient = extracted(message.headers)  # made by hand, by whoever had no span but knew whose it is
        span = self._span(names.SEND, message.queue, SpanKind.PRODUCER, ambient)
        made = span.get_span_context()
        sent = [_carrying(message, ambient, made)]
        if not span.is_recording():
            return None, sent
        span.set_attribute(names.MESSAGE_ID, message.id)
        span.set_attribute(names.TASK, message.name)
        return span, sent

    def _open_many(self, messages: Sequence[TaskMessage], ambient: Context) -> tuple[Span | None, Sequence[TaskMessage]]:
        queues = {message.queue for message in messages}
        creating = [self._create(message, ambient) for message in messages[:MOST_CREATE_SPANS]]
        span = self._tracer.start_span(
            names.span_name(names.SEND, next(iter(queues)) if len(queues) == 1 else None),
            context=ambient,
            kind=SpanKind.CLIENT,
            attributes={
                **self._of(names.SEND, next(iter(queues)) if len(queues) == 1 else None),
                names.BATCH_COUNT: len(messages),
            },
            links=[Link(made) for made, _ in creating if made.is_valid],
        )
        made = span.get_span_context()
        marked = (replace(m, headers={**m.headers, LINK_ONLY: "1"}) for m in messages[MOST_CREATE_SPANS:])
        return span, [*(message for _, message in creating), *(_carrying(message, ambient, made) for message in marked)]

    def _create(self, message: TaskMessage, ambient: Context) -> tuple[SpanContext, TaskMessage]:
        span = self._span(names.CREATE, message.queue, SpanKind.PRODUCER, ambient)
        if span.is_recording():
            span.set_attribute(names.MESSAGE_ID, message.id)
            span.set_attribute(names.TASK, message.name)
        span.end()
        made = span.get_span_context()
        return made, _carrying(message, ambient, made)

    def _span(self, operation: str, queue: str, kind: SpanKind, ambient: Context) -> Span:
        return self._tracer.start_span(
            names.span_name(operation, queue), context=ambient, kind=kind, attributes=self._of(operation, queue)
        )

    def _of(self, operation: str, queue: str | None) -> dict[str, Any]:
        """The attributes that are the same for each message of a queue: made once."""
        known = self._attributes.get((operation, queue))
        if known is None:
            where = {} if queue is None else {names.DESTINATION: queue}
            known = {**self._place, names.OPERATION: operation, names.OPERATION_TYPE: names.TYPES[operation], **where}
            self._attributes[operation, queue] = known
        return known

    # --- after ---------------------------------------------------------------------------------

    def _closed(self, span: Span | None, sent: Sequence[TaskMessage], began: float, error: BaseException | None) -> None:
        try:
            if span is not None:
                if error is not None:
                    span.set_attribute(names.ERROR_TYPE, error_type(error))
                    span.set_status(Status(StatusCode.ERROR))
                span.end()
            if self._instruments.is_on:
                self._measure(sent, time.perf_counter() - began, error)
        except Exception as failure:  # noqa: BLE001 - the same: they are sent already, or their own error is what matters
            self._instruments.failures.note("publish", failure)

    def _measure(self, sent: Sequence[TaskMessage], seconds: float, error: BaseException | None) -> None:
        instruments = self._instruments
        outcome = "accepted" if error is None else "unknown" if isinstance(error, BrokerConnectionError) else "refused"
        instruments.publish.add(len(sent), {"outcome": outcome})
        failure = {} if error is None else {names.ERROR_TYPE: error_type(error)}
        instruments.broker_op.record(seconds, {"operation": "publish", **failure})
        if not self._semconv:
            return
        shared = {names.SYSTEM: self._place[names.SYSTEM], names.OPERATION: names.SEND, **failure}
        instruments.operation.record(seconds, shared)
        for message in sent:
            instruments.sent.add(1, {**shared, names.DESTINATION: message.queue})


def _carrying(message: TaskMessage, ambient: Context, span: SpanContext | Unsampled) -> TaskMessage:
    headers = injected(message.headers, ambient, span)
    return message if headers == message.headers else replace(message, headers=headers)
