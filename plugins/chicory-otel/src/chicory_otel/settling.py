"""Spans of how deliveries end, and how long the round trip of that took."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, final

from msgspec import Struct
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, Tracer

from chicory.errors import BackendError
from chicory.plugin import Settled, SettledBatch
from chicory_otel import conventions as names

if TYPE_CHECKING:
    from chicory_otel.instruments import Instruments

__all__ = ["Settling"]

_MOST_EXPECTED = 100_000
"""Deliveries that are never settled (their lease was lost on the way) are forgotten one by one from here on."""


@final
class _Expected(Struct, kw_only=True):
    """A delivery with a span: what it came to is said by whoever knows, before it is settled."""

    span: SpanContext
    queue: str
    task_id: str
    word: str = names.ACK


@final
class Settling:
    """A settle observer: one span for each delivery that has one of its own, as its child."""

    def __init__(self, tracer: Tracer, instruments: Instruments, place: dict[str, str | int], *, semconv: bool) -> None:
        self._tracer, self._instruments, self._place, self._semconv = tracer, instruments, place, semconv
        self._expected: dict[str, _Expected] = {}

    def expect(self, receipt: str, span: SpanContext, queue: str, task_id: str) -> None:
        """The delivery *receipt* is processed in *span*."""
        if len(self._expected) >= _MOST_EXPECTED:
            self._expected.pop(next(iter(self._expected)), None)
        self._expected[receipt] = _Expected(span=span, queue=queue, task_id=task_id)

    def say(self, receipt: str, word: str) -> None:
        """It will be settled so."""
        if (expected := self._expected.get(receipt)) is not None:
            expected.word = word

    def span_of(self, receipt: str) -> SpanContext | None:
        """The span of a delivery that is not settled yet."""
        expected = self._expected.get(receipt)
        return None if expected is None else expected.span

    def forget(self, receipt: str) -> None:
        """Nobody will settle it."""
        self._expected.pop(receipt, None)

    def __call__(self, batch: SettledBatch) -> None:
        try:
            self._measure(batch)
            if self._expected:
                self._trace(batch)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises, settling goes on
            self._instruments.failures.note("settle", error)

    def _measure(self, batch: SettledBatch) -> None:
        instruments = self._instruments
        if not instruments.is_on:
            return
        if isinstance(batch.error, BackendError):
            instruments.store_errors.add(1)
        failure = {} if batch.error is None else {names.ERROR_TYPE: type(batch.error).__qualname__}
        instruments.broker_op.record(batch.seconds, {"operation": "settle", **failure})
        if self._semconv:
            shared = {names.SYSTEM: self._place[names.SYSTEM], names.OPERATION: "settle"}
            instruments.operation.record(batch.seconds, {**shared, **failure})

    def _trace(self, batch: SettledBatch) -> None:
        ended = time.time_ns()
        began = ended - int(batch.seconds * 1e9)
        for settlement, answer in zip(batch.settlements, batch.answers, strict=False):  # after an error there are no answers
            if not settlement.ends:
                continue
            expected = self._expected.pop(settlement.delivery.receipt, None)
            if expected is not None:
                self._span(expected, answer, began, ended)

    def _span(self, expected: _Expected, answer: Settled, began: int, ended: int) -> None:
        word = expected.word
        span = self._tracer.start_span(
            names.span_name(word, expected.queue),
            context=trace.set_span_in_context(NonRecordingSpan(expected.span), Context()),
            kind=SpanKind.CLIENT,
            start_time=began,
            attributes={
                **self._place,
                names.OPERATION: word,
                names.OPERATION_TYPE: "settle",
                names.DESTINATION: expected.queue,
                names.MESSAGE_ID: expected.task_id,
            },
        )
        if answer is Settled.LOST:
            span.set_attribute(names.ERROR_TYPE, "lease_lost")
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)
