"""Whatever an SDK, an exporter or a propagator does: tasks run, results come, and somebody is told once."""

import asyncio
import logging
import threading
import time
from contextlib import asynccontextmanager

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter, SpanExportResult

from chicory import Chicory, Worker
from chicory_otel import flushing
from chicory_otel.instruments import instruments


@asynccontextmanager
async def working(app):
    async with app, Worker(app) as worker:
        yield worker


@pytest.fixture
def failures():
    counts = instruments().failures.counts
    counts.clear()
    yield counts
    counts.clear()


async def runs(app):
    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(app):
        results = await add.delay_many([(1, 2), (3, 4)])
        assert [await result.get(timeout=20) for result in (*results, await add.delay(5, 6))] == [3, 7, 11]


class BrokenTracer(trace.Tracer):
    def start_span(self, *args, **kwargs):
        raise RuntimeError("no memory for a span")

    def start_as_current_span(self, *args, **kwargs):
        raise RuntimeError


class BrokenSpans(SpanProcessor):
    """A processor of the user's that raises at one end of each span."""

    def __init__(self, where):
        self.where = where

    def on_start(self, span, parent_context=None):
        if self.where == "start":
            raise RuntimeError("full")

    def on_end(self, span):
        if self.where == "end":
            raise RuntimeError("full")


def with_processor(processor):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("t")


class BrokenExporter(SpanExporter):
    def export(self, spans):
        raise ConnectionError("no collector")


@pytest.mark.parametrize(
    ("tracer", "places"),
    [
        (BrokenTracer(), {"publish", "process"}),
        (with_processor(BrokenSpans("start")), {"publish", "process"}),
        (with_processor(BrokenSpans("end")), {"publish", "process", "settle"}),
        (with_processor(SimpleSpanProcessor(BrokenExporter())), set()),
    ],
    ids=["tracer", "on_start", "on_end", "exporter"],
)
async def test_a_broken_sdk_harms_no_task(monkeypatch, caplog, failures, measured, tracer, places):
    monkeypatch.setattr("chicory_otel.plugin.trace.get_tracer", lambda *_, **__: tracer)

    with caplog.at_level(logging.WARNING, "chicory.otel"):
        await runs(Chicory(broker="memory"))

    assert {place for place, _ in failures} == places
    told = [record.getMessage() for record in caplog.records if record.name == "chicory.otel"]
    assert len(told) == len(places), "once each"
    assert {dict(labels)["place"] for labels in measured.at("chicory.otel.failures")} == places


async def test_a_broken_propagator_harms_no_task(failures):
    class Broken:
        fields = frozenset({"x"})

        def inject(self, *args, **kwargs):
            raise ValueError

        extract = inject

    usual = propagate.get_global_textmap()
    propagate.set_global_textmap(Broken())
    try:
        await runs(Chicory(broker="memory"))
    finally:
        propagate.set_global_textmap(usual)

    assert {place for place, _ in failures} == {"publish", "process"}


async def test_a_collector_that_hangs_delays_the_end_by_flush_seconds_and_nothing_else(monkeypatch, caplog):
    may_end = threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans):
            may_end.wait(60)
            return SpanExportResult.SUCCESS

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Hanging(), schedule_delay_millis=60_000))
    monkeypatch.setattr("chicory_otel.plugin.trace.get_tracer", provider.get_tracer)
    monkeypatch.setattr(flushing.trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setenv("CHICORY_OTEL_FLUSH_SECONDS", "0.3")

    began = time.monotonic()
    try:
        with caplog.at_level(logging.WARNING, "chicory.otel"):
            await asyncio.wait_for(runs(Chicory(broker="memory")), 40)
    finally:
        may_end.set()

    assert time.monotonic() - began < 40
    assert "event=otel_not_flushed seconds=0.3" in caplog.text


async def test_an_exporter_that_fails_to_flush_is_logged(monkeypatch, caplog):
    class Provider:
        def force_flush(self, milliseconds):
            raise ConnectionError("no collector")

    monkeypatch.setattr(flushing.trace, "get_tracer_provider", Provider)

    with caplog.at_level(logging.WARNING, "chicory.otel"):
        assert await flushing.flushed(5) is False

    assert "event=otel_flush_failed error_type=ConnectionError" in caplog.text
