"""The layer around each try: its span, the context in which the task runs, and what is counted of it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct
from msgspec.structs import replace
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from chicory.errors import LeaseLost
from chicory.plugin import Attempt, Clock, Decision, Next, Outcome
from chicory_otel import conventions as names
from chicory_otel.failing import is_traced
from chicory_otel.propagation import FORMER_ATTEMPT, Unsampled, extracted, former_attempt, written
from chicory_otel.rules import begins_trace, error_type, outcome_label, settle_word

if TYPE_CHECKING:
    from chicory_otel.instruments import Instruments
    from chicory_otel.settings import TraceMode
    from chicory_otel.settling import Settling

__all__ = ["ProcessTracing"]


@final
class _Open(Struct, kw_only=True):
    """What is to be closed when the try has ended."""

    token: Any = None
    span: Span | None = None
    began: datetime | None = None


_NOTHING = _Open()


@final
class ProcessTracing:
    """A CONSUMER span for each try, whose context is current in the task.

    Where the sender does not sample there is no span: its context is current, so that what the task sends stays so too.
    """

    def __init__(
        self,
        tracer: Tracer,
        instruments: Instruments,
        settling: Settling,
        place: dict[str, str | int],
        clock: Clock,
        *,
        mode: TraceMode,
        semconv: bool,
    ) -> None:
        self._tracer, self._instruments, self._settling = tracer, instruments, settling
        self._place, self._clock, self._mode, self._semconv = place, clock, mode, semconv

    async def __call__(self, attempt: Attempt, proceed: Next) -> Outcome:
        opened = self._opened(attempt)
        try:
            outcome = await proceed(attempt)
        except asyncio.CancelledError:
            self._left(opened)
            self._stopped(opened, attempt)
            raise
        self._left(opened)
        return self._closed(opened, attempt, outcome)

    # --- before --------------------------------------------------------------------------------

    def _opened(self, attempt: Attempt) -> _Open:
        try:
            return self._open(attempt)
        except Exception as error:  # noqa: BLE001 - whatever an SDK raises, the task runs
            self._instruments.failures.note("process", error)
            return _NOTHING

    def _open(self, attempt: Attempt) -> _Open:
        began = self._clock.now() if self._instruments.is_on else None
        headers = {} if attempt.message is None else attempt.message.headers
        around = extracted(headers)
        sender = trace.get_current_span(around)
        if isinstance(sender, Unsampled):
            return _Open(token=context.attach(around), began=began)
        creation = sender.get_span_context()
        if (creation.is_valid and not creation.trace_flags.sampled) or not is_traced():
            return _Open(token=context.attach(around), began=began)
        span = self._span(attempt, headers, around, creation)
        token = context.attach(trace.set_span_in_context(span, around))
        if not span.is_recording():
            return _Open(token=token, began=began)
        self._settling.expect(
            attempt.delivery.receipt, span.get_span_context(), attempt.delivery.queue, attempt.delivery.envelope.id
        )
        return _Open(token=token, span=span, began=began)

    def _span(self, attempt: Attempt, headers: dict[str, str], around: Context, creation: SpanContext) -> Span:
        now, message = self._clock.now(), attempt.message
        links = [] if not creation.is_valid else [Link(creation)]
        if (former := former_attempt(headers)) is not None:
            links.append(Link(former))
        hop = attempt.delivery.envelope.hop
        if message is not None and creation.is_valid and begins_trace(message, hop=hop, now=now, mode=self._mode):
            around = trace.set_span_in_context(INVALID_SPAN, around)
        return self._tracer.start_span(
            names.span_name(names.PROCESS, attempt.delivery.queue),
            context=around,
            kind=SpanKind.CONSUMER,
            attributes=self._attributes(attempt, now),
            links=links,
        )

    def _attributes(self, attempt: Attempt, now: datetime) -> dict[str, Any]:
        delivery, message = attempt.delivery, attempt.message
        attributes: dict[str, Any] = {
            **self._place,
            names.OPERATION: names.PROCESS,
            names.OPERATION_TYPE: names.PROCESS,
            names.DESTINATION: delivery.queue,
            names.MESSAGE_ID: delivery.envelope.id,
            names.CLIENT_ID: attempt.worker_id,
            names.DELIVERY_COUNT: delivery.delivery_count,
        }
        if message is not None:
            attributes[names.TASK] = message.name
            attributes[names.ATTEMPT] = message.retries + 1
            if (due := message.eta or message.enqueued_at) is not None:
                attributes[names.QUEUE_TIME] = round(max(0.0, (now - due).total_seconds()) * 1000, 3)
        return attributes

    # --- after ---------------------------------------------------------------------------------

    def _left(self, opened: _Open) -> None:
        if opened.token is not None:
            context.detach(opened.token)

    def _closed(self, opened: _Open, attempt: Attempt, outcome: Outcome) -> Outcome:
        try:
            if opened.began is not None:
                self._measure(opened.began, attempt, outcome)
            if opened.span is not None:
                return self._end(opened.span, attempt, outcome)
        except Exception as error:  # noqa: BLE001 - the same: what it came to stands
            self._instruments.failures.note("process", error)
        return outcome

    def _end(self, span: Span, attempt: Attempt, outcome: Outcome) -> Outcome:
        receipt, error = attempt.delivery.receipt, outcome.error
        if error is not None and outcome.decision is not Decision.DEFER:
            span.set_attribute(names.ERROR_TYPE, error_type(error))
            span.set_status(Status(StatusCode.ERROR))
        if isinstance(error, LeaseLost):
            self._settling.forget(receipt)
        else:
            self._settling.say(receipt, settle_word(outcome))
        span.end()
        if outcome.decision is not Decision.RETRY or attempt.message is None:
            return outcome
        headers = outcome.changes.get("headers", attempt.message.headers)
        marked = {**headers, FORMER_ATTEMPT: written(span.get_span_context())}
        return replace(outcome, changes={**outcome.changes, "headers": marked})

    def _stopped(self, opened: _Open, attempt: Attempt) -> None:
        """It was cancelled: by a drain, which is no error of its, or since its lease was lost, or by its own code."""
        try:
            label = {"lease_lost": "lost", "shutdown": "cancelled"}.get(attempt.stopped_for or "", "failure")
            if opened.began is not None:
                self._count(attempt, label, (self._clock.now() - opened.began).total_seconds(), opened.began)
            if (span := opened.span) is None:
                return
            if label != "cancelled":
                span.set_attribute(names.ERROR_TYPE, attempt.stopped_for or "CancelledError")
                span.set_status(Status(StatusCode.ERROR))
            if label == "lost":
                self._settling.forget(attempt.delivery.receipt)
            elif label == "cancelled":
                self._settling.say(attempt.delivery.receipt, names.RELEASE)
            span.end()
        except Exception as error:  # noqa: BLE001 - the same
            self._instruments.failures.note("process", error)

    # --- metrics -------------------------------------------------------------------------------

    def _measure(self, began: datetime, attempt: Attempt, outcome: Outcome) -> None:
        label = outcome_label(outcome)
        if label is None:
            return
        self._count(attempt, label, (self._clock.now() - began).total_seconds(), began)
        instruments, task = self._instruments, self._task(attempt)
        reason = "none" if outcome.error is None else outcome.reason or error_type(outcome.error)
        if label == "retry":
            instruments.retries.add(1, {"task": task, "reason": reason})
        elif label == "dead":
            instruments.dead.add(1, {"task": task, "reason": reason})

    def _task(self, attempt: Attempt) -> str:
        return self._instruments.task_label(None if attempt.task is None else attempt.task.name)

    def _count(self, attempt: Attempt, label: str, seconds: float, began: datetime) -> None:
        instruments, delivery = self._instruments, attempt.delivery
        where = {"queue": delivery.queue, "task": self._task(attempt)}
        ended = {**where, "outcome": label}
        instruments.tasks.add(1, ended)
        instruments.run.record(seconds, ended)
        if attempt.message is not None and (due := attempt.message.eta or attempt.message.enqueued_at) is not None:
            instruments.wait.record(max(0.0, (began - due).total_seconds()), where)
        if delivery.delivery_count > 1:
            instruments.redeliveries.add(1, {"queue": delivery.queue})
        if self._semconv:
            shared = {
                names.SYSTEM: self._place[names.SYSTEM],
                names.DESTINATION: delivery.queue,
                names.OPERATION: names.PROCESS,
            }
            instruments.consumed.add(1, shared)
            failed = label not in ("success", "cancelled")
            instruments.process.record(seconds, {**shared, names.ERROR_TYPE: label} if failed else shared)
