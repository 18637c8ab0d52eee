"""Spans of one process, in memory: their names, kinds, parents, links, attributes; and where there are none."""

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind, StatusCode

from chicory import Chicory, DeliveryMode, RetryPolicy, TaskContext, TaskFailedError, TaskMessage, Worker, WorkerConfig
from chicory.plugin import Envelope, Settlement, revise
from chicory.testing import FakeClock, eventually
from chicory_otel.propagation import FORMER_ATTEMPT
from chicory_otel.rules import MOST_CREATE_SPANS

SECRET = "canary-" + "5d1f"


@pytest.fixture
def app():
    return Chicory(broker="memory")


@asynccontextmanager
async def working(app, **settings):
    async with app, Worker(app, WorkerConfig(**settings)) as worker:
        yield worker


def tracer():
    return trace.get_tracer("test")


def ids(span_context):
    return span_context.trace_id, span_context.span_id


def links_of(span):
    return [ids(link.context) for link in span.links]


async def test_a_call_is_one_trace_of_three_spans(app, spans):
    @app.task(queue="mail")
    async def send(to: str) -> str:
        return to

    async with working(app, queue="mail") as worker:
        with tracer().start_as_current_span("request") as request:
            sent = await send.delay(SECRET)
        assert await sent.get(timeout=20) == SECRET
        await eventually(lambda: spans.named("ack mail"), within=20)

    producer, process, ack = spans.one("send mail"), spans.one("process mail"), spans.one("ack mail")
    assert [span.kind for span in (producer, process, ack)] == [SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.CLIENT]
    assert [span.parent.span_id for span in (producer, process, ack)] == [
        *(request.get_span_context().span_id, producer.context.span_id, process.context.span_id)
    ]
    assert {span.context.trace_id for span in (producer, process, ack)} == {request.get_span_context().trace_id}
    assert links_of(process) == [ids(producer.context)], "the child of what created it is linked to it too"
    assert {span.status.status_code for span in spans.all()} == {StatusCode.UNSET}
    assert process.attributes["messaging.client.id"] == worker.worker_id
    assert SECRET not in "".join(span.to_json() for span in spans.all())


SHARED = {"messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name"}
GOLDEN = {
    "send": SHARED | {"messaging.message.id", "chicory.task.name"},
    "process": SHARED
    | {"messaging.message.id", "messaging.client.id", "chicory.task.name", "chicory.task.attempt"}
    | {"chicory.task.delivery_count", "chicory.task.queue_time_ms"},
    "ack": SHARED | {"messaging.message.id"},
}
"""As the conventions of version 1.45.0 ask, and what chicory adds: a change of either is seen here."""


async def test_attributes_are_those_of_the_conventions(app, spans):
    @app.task
    async def one() -> None: ...

    async with working(app):
        sent = await one.delay()
        await eventually(lambda: spans.named("ack default"), within=20)

    found = {name: spans.one(f"{name} default").attributes for name in GOLDEN}
    assert {name: set(attributes) for name, attributes in found.items()} == GOLDEN
    for name, kind in {"send": "send", "process": "process", "ack": "settle"}.items():
        assert found[name]["messaging.operation.type"] == kind
        assert found[name]["messaging.system"] == "memory"
        assert found[name]["messaging.message.id"] == sent.task_id
    assert found["process"]["chicory.task.attempt"] == 1


async def test_each_try_is_a_span_and_knows_the_one_before(app, spans):
    @app.task(retry_policy=RetryPolicy(max_retries=2, retry_delay=0.001))
    async def flaky(ctx: TaskContext) -> int:
        if ctx.retries < 2:
            raise ValueError(SECRET)
        return ctx.retries

    async with working(app):
        assert await (await flaky.delay()).get(timeout=20) == 2
        await eventually(lambda: spans.named("ack default"), within=20)

    creation = spans.one("send default").context
    first, second, third = spans.named("process default")
    assert [span.attributes["chicory.task.attempt"] for span in (first, second, third)] == [1, 2, 3]
    assert {span.parent.span_id for span in (first, second, third)} == {creation.span_id}
    assert links_of(second) == [ids(creation), ids(first.context)]
    assert links_of(third) == [ids(creation), ids(second.context)]
    assert [span.status.status_code for span in (first, second, third)] == [*[StatusCode.ERROR] * 2, StatusCode.UNSET]
    assert first.attributes["error.type"] == "ValueError"
    assert [span.parent.span_id for span in spans.named("retry default")] == [first.context.span_id, second.context.span_id]
    assert SECRET not in "".join(span.to_json() for span in spans.all())


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_what_a_task_sends_and_logs_belongs_to_its_span(app, spans, kind):
    seen = {}

    @app.task
    async def inner() -> None: ...

    if kind == "async":

        @app.task(queue="outer")
        async def outer() -> None:
            seen["span"] = trace.get_current_span().get_span_context()
            seen["baggage"] = baggage.get_baggage("user")
            await inner.delay()
    else:

        @app.task(queue="outer")
        def outer() -> None:
            seen["span"] = trace.get_current_span().get_span_context()
            seen["baggage"] = baggage.get_baggage("user")
            seen["thread"] = threading.current_thread()
            inner.delay_sync()

    async with working(app, queue="outer,default"):
        token = context.attach(baggage.set_baggage("user", "7"))
        await outer.delay()
        context.detach(token)
        await eventually(lambda: spans.named("ack default"), within=20)

    process = spans.one("process outer")
    assert ids(seen["span"]) == ids(process.context)
    assert seen["baggage"] == "7"
    assert spans.one("send default").parent.span_id == process.context.span_id
    assert len({span.context.trace_id for span in spans.all()}) == 1
    assert seen.get("thread") is not threading.current_thread()
    assert trace.get_current_span().get_span_context().is_valid is False, "nothing of it is left here"


async def test_where_the_sender_does_not_sample_nobody_does(app, spans, sampling):
    sampling.is_on = False
    told = []

    @app.task
    async def inner(ctx: TaskContext) -> None:
        told.append(trace.get_current_span().get_span_context())

    @app.task
    async def outer() -> None:
        told.append(trace.get_current_span().get_span_context())
        sampling.is_on = True  # a worker that would sample what nobody decided about
        await inner.delay()

    async with working(app):
        await outer.delay()
        await eventually(lambda: len(told) == 2, within=20)

    assert spans.all() == []
    assert len({span.trace_id for span in told}) == 1, "the decision travels on, under its trace id"
    assert [span.trace_flags.sampled for span in told] == [False, False]


async def test_what_is_due_much_later_begins_a_trace_and_is_linked(spans):
    clock = FakeClock()
    app = Chicory(broker="memory", clock=clock)

    @app.task
    async def nightly() -> None: ...

    async with working(app):
        await nightly.options(countdown=90).delay()
        await nightly.options(countdown=30).delay()
        for _ in range(2):
            await clock.advance(45)
            await asyncio.sleep(0)
        await eventually(lambda: len(spans.named("process default")) == 2, within=20)

    late, soon = spans.named("send default")
    by_link = {links_of(span)[0]: span for span in spans.named("process default")}
    assert by_link[ids(soon.context)].parent.span_id == soon.context.span_id
    assert by_link[ids(late.context)].parent is None
    assert by_link[ids(late.context)].context.trace_id != late.context.trace_id


async def test_a_bulk_publish_has_a_span_for_each_of_the_first_messages(app, spans):
    @app.task
    async def one(number: int) -> None: ...

    extra = 3
    async with working(app):
        results = await one.delay_many([(number,) for number in range(MOST_CREATE_SPANS + extra)])
        for result in results:
            await result.get(timeout=30)

    creating, sending, processing = (spans.named(f"{word} default") for word in ("create", "send", "process"))
    assert len(creating) == MOST_CREATE_SPANS
    assert {span.kind for span in creating} == {SpanKind.PRODUCER}
    assert (sending[0].kind, sending[0].attributes["messaging.batch.message_count"]) == (SpanKind.CLIENT, 131)
    assert links_of(sending[0]) == [ids(span.context) for span in creating]
    parents = {span.parent.span_id for span in processing if span.parent is not None}
    assert parents == {span.context.span_id for span in creating}
    rest = [span for span in processing if span.parent is None]
    assert [links_of(span) for span in rest] == [[ids(sending[0].context)]] * extra


async def test_a_bulk_publish_to_two_queues_names_none(app, spans):
    (middleware,) = dict(app.plugins.collect("chicory_publish_middleware", app=app))["otel"]
    got = []

    async def proceed(messages):
        got.extend(messages)

    await middleware.layer([TaskMessage(name="a", queue="x"), TaskMessage(name="b", queue="y")], proceed)

    assert spans.one("send").attributes["messaging.batch.message_count"] == 2
    assert "messaging.destination.name" not in spans.one("send").attributes
    assert [m.headers["traceparent"][36:52] for m in got] == [
        f"{spans.one(f'create {queue}').context.span_id:016x}" for queue in "xy"
    ]


async def test_a_message_made_by_hand_keeps_the_trace_that_it_names(app, spans):
    @app.task(name="one")
    async def one() -> None: ...

    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    async with working(app):
        await app.broker.publish(TaskMessage(name="one", headers={"traceparent": header}))
        await eventually(lambda: spans.named("ack default"), within=20)

    assert {f"{span.context.trace_id:032x}" for span in spans.all()} == {header[3:35]}


@pytest.mark.parametrize("mode", [DeliveryMode.AT_LEAST_ONCE, DeliveryMode.AT_MOST_ONCE])
async def test_cancelled_by_a_shutdown_is_no_error(app, spans, mode):
    begun = asyncio.Event()

    @app.task(delivery_mode=mode)
    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with app:
        worker = Worker(app)
        await worker.start()
        await hang.delay()
        await begun.wait()
        await worker.stop(timeout=0)

    process = spans.one("process default")
    assert process.status.status_code is StatusCode.UNSET
    assert "error.type" not in process.attributes
    word = "release" if mode is DeliveryMode.AT_LEAST_ONCE else "ack"
    assert spans.one(f"{word} default").parent.span_id == process.context.span_id


async def test_a_final_failure_is_an_error_of_its_class(app, spans):
    class Declined(Exception): ...

    @app.task
    async def pay() -> None:
        raise Declined(SECRET)

    @app.task(timeout=0.01)
    async def slow() -> None:
        await asyncio.sleep(60)

    async with working(app):
        for task, word in ((pay, Declined.__qualname__), (slow, "timeout")):
            spans.exporter.clear()
            with pytest.raises(TaskFailedError):
                await (await task.delay()).get(timeout=20)
            process = spans.one("process default")
            assert (process.status.status_code, process.attributes["error.type"]) == (StatusCode.ERROR, word)
            assert process.status.description is None
            assert process.events == ()


async def test_what_cannot_be_read_or_is_unknown_has_a_span(app, spans):
    async with working(app):
        async with app.broker_twin() as broker:
            await broker.publish([Envelope(id="17", queue="default", body=b"\xff\x00")])
            await eventually(lambda: spans.named("ack default"), within=20)
        assert spans.one("process default").attributes["error.type"] == "decode"
        spans.exporter.clear()
        await app.send_task("nobody.knows")
        await eventually(lambda: spans.named("release default"), within=20)

    (process, *_) = spans.named("process default")
    assert process.status.status_code is StatusCode.UNSET, "it was put back for a worker that knows it"


async def test_a_header_of_the_try_before_does_not_outlive_the_retry(app, spans):
    seen = []

    @app.task(retry_policy=RetryPolicy(retry_delay=0.001))
    async def flaky(ctx: TaskContext) -> None:
        seen.append(dict(ctx.headers))
        if ctx.retries == 0:
            raise ValueError

    async with working(app):
        await (await flaky.options(headers={"tenant": "7"}).delay()).get(timeout=20)

    first, second = seen
    assert {name: second[name] for name in first} == first, "tenant, and the trace of whoever sent it"
    assert second[FORMER_ATTEMPT][36:52] == f"{spans.named('process default')[0].context.span_id:016x}"


async def test_a_replay_is_linked_to_what_was_sent(app, spans):
    """As the dead letter plugin replays: the same document, at a higher hop, some time after."""

    @app.task(name="one")
    async def one() -> None: ...

    async with app:
        await one.delay()
        async with app.broker_twin() as broker:
            (delivery,) = await broker.receive(["default"], 1, 1)
            replayed = revise(delivery.envelope, enqueued_at=datetime.now(UTC) - timedelta(seconds=120))
            await broker.settle([Settlement(delivery=delivery, publish=(replayed,))])
        async with Worker(app):
            await eventually(lambda: spans.named("ack default"), within=20)

    process, producer = spans.one("process default"), spans.one("send default")
    assert process.parent is None
    assert links_of(process) == [ids(producer.context)]
