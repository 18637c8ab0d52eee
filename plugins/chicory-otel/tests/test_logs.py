"""Log lines that say to which trace, and to which task, they belong."""

import io
import json
import logging

import pytest
import structlog
from opentelemetry import trace

from chicory import TaskMessage
from chicory.plugin import Attempt, Delivery, Envelope, current_attempt
from chicory_otel import TraceFilter, add_trace
from chicory_otel.logs import facts


@pytest.fixture
def attempt():
    delivery = Delivery(
        envelope=Envelope(id="17", queue="mail", body=b""), receipt="1", delivery_count=1, lease_seconds=30, received_at=0
    )
    made = Attempt(delivery=delivery, worker_id="w", message=TaskMessage(id="17", name="mail.send", retries=2))
    token = current_attempt.set(made)
    with trace.get_tracer("t").start_as_current_span("process mail") as span:
        yield span.get_span_context()
    current_attempt.reset(token)


OF_THE_TASK = {"task_id": "17", "task": "mail.send", "retries": 2, "queue": "mail", "worker": "w"}


def as_hex(span):
    return {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


def test_structlog_adds_what_is_known_and_keeps_what_is_said(attempt):
    printed = io.StringIO()
    processors = [add_trace, structlog.processors.JSONRenderer()]
    log = structlog.wrap_logger(structlog.PrintLogger(printed), processors=processors)

    log.info("sent", queue="mine")

    assert json.loads(printed.getvalue()) == {"event": "sent", **OF_THE_TASK, **as_hex(attempt), "queue": "mine"}


def test_what_a_worker_says_of_a_try_names_its_span_until_it_is_settled(attempt):
    with trace.use_span(trace.INVALID_SPAN):
        assert facts(lambda receipt: attempt if receipt == "1" else None) == {**OF_THE_TASK, **as_hex(attempt)}
        assert facts(lambda _: None) == OF_THE_TASK


def test_outside_of_a_task_and_a_trace_nothing_is_added():
    assert add_trace(None, "info", {"event": "sent"}) == {"event": "sent"}


FORMAT = "%(trace_id)s %(span_id)s %(task_id)s %(task)s %(retries)s %(queue)s %(worker)s %(message)s"


@pytest.fixture
def lines():
    handler, found = logging.Handler(), []
    handler.addFilter(TraceFilter())
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.emit = lambda record: found.append(handler.format(record))
    log = logging.getLogger("shop")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield found
    log.removeHandler(handler)


def test_a_filter_gives_the_stdlib_the_same(attempt, lines):
    logging.getLogger("shop").info("sent")

    trace_id, span_id = as_hex(attempt).values()
    assert lines == [f"{trace_id} {span_id} 17 mail.send 2 mail w sent"]


def test_a_format_that_names_them_works_outside_of_tasks_too(lines):
    logging.getLogger("shop").info("started")

    assert lines == [f"{' ' * 7}started"]
