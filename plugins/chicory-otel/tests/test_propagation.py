"""The short cuts write and read what the propagator does."""

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chicory_otel.propagation import Unsampled, extracted, injected, parse, written


def a_span(flags=1, state=()):
    return SpanContext(0xA3CE, 0xB7, is_remote=False, trace_flags=TraceFlags(flags), trace_state=TraceState(list(state)))


def around(span):
    return trace.set_span_in_context(NonRecordingSpan(span), Context())


CONTEXTS = {
    "sampled": around(a_span()),
    "not sampled": around(a_span(0)),
    "with state": around(a_span(state=[("vendor", "1")])),
    "with baggage": baggage.set_baggage("user", "7", around(a_span())),
    "baggage alone": baggage.set_baggage("user", "7", Context()),
    "nothing": Context(),
}


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_what_is_injected_is_what_the_propagator_writes(context):
    expected = {"x": "y"}
    propagate.inject(expected, context)

    assert injected({"x": "y"}, context, trace.get_current_span(context).get_span_context()) == expected


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
def test_what_was_injected_is_extracted(context):
    span = trace.get_current_span(context).get_span_context()
    found = extracted(injected({}, context, span))

    read = trace.get_current_span(found).get_span_context()
    assert (read.trace_id, read.span_id, read.trace_flags, read.trace_state) == (
        *(span.trace_id, span.span_id),
        *(span.trace_flags, span.trace_state),
    )
    assert baggage.get_all(found) == baggage.get_all(context)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"traceparent": written(a_span(1))},
        {"traceparent": written(a_span(0))},
        {"traceparent": written(a_span(2))},
        {"traceparent": "00-" + "0" * 32 + "-" + "1" * 16 + "-00"},
        {"traceparent": "00-" + "1" * 32 + "-" + "0" * 16 + "-00"},
        {"traceparent": written(a_span(3)), "tracestate": "vendor=1"},
        {"traceparent": written(a_span(0)), "baggage": "user=7"},
        {"traceparent": "00-nonsense-00"},
    ],
)
def test_what_is_extracted_is_what_the_propagator_reads(headers):
    found, expected = extracted(headers), propagate.extract(headers, Context())

    spans = [trace.get_current_span(made).get_span_context() for made in (found, expected)]
    assert spans[0] == spans[1]
    assert baggage.get_all(found) == baggage.get_all(expected)


@pytest.mark.parametrize("flags", [0, 2])
def test_what_is_not_sampled_is_carried_on_as_it_came(flags):
    text = written(a_span(flags))
    around = extracted({"traceparent": text})
    span = trace.get_current_span(around)
    assert isinstance(span, Unsampled)
    assert not span.is_recording()

    assert injected({"x": "y"}, around, span) == {"x": "y", "traceparent": text}
    with_baggage = baggage.set_baggage("user", "7", around)
    assert injected({}, with_baggage, span) == {"traceparent": text, "baggage": "user=7"}


def test_another_propagator_is_asked_itself(monkeypatch):
    usual = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator()]))
    try:
        headers = {"traceparent": written(a_span()), "baggage": "user=7"}
        assert baggage.get_all(extracted(headers)) == {}
        assert injected({}, CONTEXTS["with baggage"], a_span()) == {"traceparent": written(a_span())}
    finally:
        propagate.set_global_textmap(usual)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-" + "0" * 32 + "-" + "0" * 16 + "-01",
        "01-" + "1" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "g" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "+" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "1" * 16 + "-01-more",
    ],
)
def test_what_is_no_traceparent_is_no_span(text):
    assert parse(text) is None
