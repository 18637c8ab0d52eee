"""Trace context and baggage in the headers of messages, by the process's propagator; short cuts where it is the usual one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import final

from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, SpanContext, TraceFlags

__all__ = ["FORMER_ATTEMPT", "Unsampled", "extracted", "former_attempt", "injected", "parse", "written"]

FORMER_ATTEMPT = "otel_former_attempt"
"""Header of a retry: the span of the try before, as a traceparent."""
_TRACEPARENT, _TRACESTATE, _BAGGAGE = "traceparent", "tracestate", "baggage"
_W3C = {_TRACEPARENT, _TRACESTATE, _BAGGAGE}
_LENGTH = 55
_unsampled = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f][02468ace]").fullmatch
"""The traceparent of a valid span whose lowest flag, that it is sampled, is not set."""


@final
class Unsampled(NonRecordingSpan):
    """A sender's span that is not sampled: what it is called is read only if somebody asks, which is hardly ever."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_span_context(self) -> SpanContext:
        return parse(self.text) or INVALID_SPAN_CONTEXT

    def __repr__(self) -> str:
        return f"Unsampled({self.text!r})"


def injected(headers: Mapping[str, str], ambient: Context, span: SpanContext | Unsampled) -> dict[str, str]:
    """*headers* with what the propagator writes of *span*, within what else *ambient* holds."""
    if isinstance(span, Unsampled):
        if _is_w3c() and not baggage.get_all(ambient):
            return {**headers, _TRACEPARENT: span.text}
        span = span.get_span_context()
    if _is_w3c() and not span.trace_state and not (ambient and baggage.get_all(ambient)):
        # Nine messages of ten: what the propagator would write, in a third of its time.
        return {**headers, _TRACEPARENT: written(span)} if span.is_valid else dict(headers)
    carrier = dict(headers)
    propagate.inject(carrier, trace.set_span_in_context(NonRecordingSpan(span), ambient))
    return carrier


def extracted(headers: Mapping[str, str]) -> Context:
    """What the sender's propagator wrote."""
    text = headers.get(_TRACEPARENT)
    if text is not None and _TRACESTATE not in headers and _BAGGAGE not in headers and _is_w3c():
        if _unsampled(text):
            return trace.set_span_in_context(Unsampled(text), Context())
        span = parse(text)
        if span is not None:  # again what the propagator would make of it
            return trace.set_span_in_context(NonRecordingSpan(span), Context())
    return propagate.extract(headers, Context())


def former_attempt(headers: Mapping[str, str]) -> SpanContext | None:
    """The span of the try before this one."""
    text = headers.get(FORMER_ATTEMPT)
    return None if text is None else parse(text)


def written(span: SpanContext) -> str:
    """*span* as a traceparent (W3C Trace Context, level 1, section 3.2).

    >>> written(SpanContext(0xA3CE, 0xB7, is_remote=False, trace_flags=TraceFlags(1)))
    '00-0000000000000000000000000000a3ce-00000000000000b7-01'
    """
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def parse(text: str) -> SpanContext | None:
    """The span that a traceparent of version 00 names; None if it is none."""
    if len(text) != _LENGTH or text[:3] != "00-" or text[35] != "-" or text[52] != "-":
        return None
    try:
        span = SpanContext(
            int(text[3:35], 16), int(text[36:52], 16), is_remote=True, trace_flags=TraceFlags(int(text[53:], 16))
        )
    except ValueError:
        return None
    return span if span.is_valid else None


def _is_w3c() -> bool:
    """Nothing but what stands in `_W3C` is written by the propagator in use."""
    propagator = propagate.get_global_textmap()
    if propagator is not _known[0]:
        _known[:] = [propagator, set(propagator.fields) == _W3C]
    return bool(_known[1])


_known: list[object] = [None, False]
