"""What is measured, under which names and labels; and who asks queues how deep they are."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from chicory import Chicory, RetryPolicy, TaskContext, TaskMessage, TaskState, Worker, WorkerConfig
from chicory.errors import BackendConnectionError, BrokerConnectionError
from chicory.plugin import Attempt, Delivery, Envelope, Event, Outcome, SettledBatch
from chicory.testing import FakeClock, eventually
from chicory_otel import OtelConfig
from chicory_otel import conventions as names
from chicory_otel.failing import Failures
from chicory_otel.instruments import MOST_TASKS, OTHER, Instruments, instruments
from chicory_otel.life import listener
from chicory_otel.processing import ProcessTracing
from chicory_otel.publishing import PublishTracing
from chicory_otel.queues import QueueSampler
from chicory_otel.settling import Settling

PLACE = {"messaging.system": "memory"}


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setenv("CHICORY_OTEL_SAMPLE_SECONDS", "0.05")
    return Chicory(broker="memory")


@asynccontextmanager
async def working(app, **settings):
    async with app, Worker(app, WorkerConfig(**settings)) as worker:
        yield worker


def labels(**given):
    return tuple(sorted(given.items()))


async def test_tries_are_counted_by_queue_task_and_outcome(app, measured):
    @app.task(name="flaky", retry_policy=RetryPolicy(retry_delay=0.001))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.retries == 0:
            raise ValueError

    async with working(app):
        await (await flaky.delay()).get(timeout=20)
        await eventually(lambda: len(measured("chicory.tasks")) == 2, within=20)

    retried, ended = (labels(queue="default", task="flaky", outcome=outcome) for outcome in ("retry", "success"))
    assert measured("chicory.tasks") == {retried: 1, ended: 1}
    assert measured("chicory.task.run") == {retried: 1, ended: 1}
    assert measured("chicory.task.wait") == {labels(queue="default", task="flaky"): 2}
    assert measured("chicory.retries") == {labels(task="flaky", reason="ValueError"): 1}
    assert measured("chicory.publish") == {labels(outcome="accepted"): 1}
    assert measured("chicory.broker.op")[labels(operation="publish")] == 1
    assert measured("chicory.broker.op")[labels(operation="settle")] >= 2


async def test_the_depth_and_the_age_of_queues_are_sampled(app, measured):
    begun, may_end = asyncio.Event(), asyncio.Event()

    @app.task
    async def hang() -> None:
        begun.set()
        await may_end.wait()

    @app.task(queue="default.dlq", name="dead")
    async def dead() -> None: ...

    async with working(app, concurrency=1):
        await hang.delay()
        await begun.wait()
        await hang.delay()
        await hang.options(countdown=600).delay()
        await dead.delay()

        def is_sampled():
            depth = measured.at("chicory.queue.depth")
            wanted = {"ready": 1, "running": 1, "delayed": 1, "dead": 1}
            return depth == {labels(queue="default", state=state): number for state, number in wanted.items()}

        await eventually(is_sampled, within=20)
        await eventually(lambda: measured.at("chicory.queue.oldest_age")[labels(queue="default")] > 0, within=20)
        assert measured.at("chicory.worker.slots") == {labels(pool="default"): 1}
        assert measured.at("chicory.worker.slots_busy") == {labels(pool="default"): 1}
        may_end.set()

    assert measured.at("chicory.queue.depth") == {}, "a worker that is gone reports nothing any longer"
    assert measured.at("chicory.worker.slots") == {}


async def test_of_several_workers_one_asks_for_a_queue(app, measured):
    async with app:
        workers = [Worker(app, WorkerConfig(queue=queue)) for queue in ("default", "default", "default,mail")]
        for worker in workers:
            await worker.start()
        samplers = [QueueSampler(app, worker, instruments(), 10) for worker in workers]
        async with app.broker_twin() as broker, app.backend_twin() as backend:
            asked = [list(await sampler._sample(broker, backend)) for sampler in samplers]
        for worker in workers:
            await worker.stop()

    first = min(worker.worker_id for worker in workers)
    assert [worker.worker_id for worker, queues in zip(workers, asked, strict=True) if "default" in queues] == [first]
    assert ["mail" in queues for queues in asked] == [False, False, True]


async def test_without_a_backend_each_worker_asks(measured, monkeypatch):
    monkeypatch.setenv("CHICORY_OTEL_SAMPLE_SECONDS", "0.05")
    app = Chicory(broker="memory", backend=None)

    async with working(app):
        await eventually(lambda: measured.at("chicory.queue.depth"), within=20)


async def test_the_loop_is_asked_how_late_it_is(app, measured, monkeypatch):
    monkeypatch.setattr("chicory_otel.life._LAG_SECONDS", 0.01)

    async with working(app):
        await eventually(lambda: measured("chicory.loop.lag"), within=20)


def test_events_of_a_worker_are_counted(measured):
    listening = listener(instruments(), OtelConfig())

    for kind in sorted(listening.kinds):
        listening.sink(Event(kind=kind, at=None, queue="mail"))

    assert measured("chicory.lease_lost") == {labels(queue="mail"): 1}
    assert measured("chicory.broker.reconnects") == {(): 1}


# --- parts by themselves -----------------------------------------------------------------------------


@pytest.fixture
def own():
    """Instruments of a test's own, and what they have recorded, by name."""
    reader = InMemoryMetricReader()
    made = Instruments(MeterProvider([reader], shutdown_on_exit=False).get_meter("test"), Failures())

    def read():
        data = reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else []:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                found[metric.name] = [dict(point.attributes) for point in metric.data.data_points]
        return found

    return made, read


def an_attempt(**changes):
    delivery = Delivery(
        envelope=Envelope(id="17", queue="mail", body=b""), receipt="1", delivery_count=2, lease_seconds=30, received_at=0
    )
    return Attempt(delivery=delivery, worker_id="w", message=TaskMessage(name="a"), **changes)


def a_layer(made, clock, **changes):
    settling = Settling(trace.get_tracer("t"), made, PLACE, semconv=False)
    return ProcessTracing(
        trace.get_tracer("t"), made, settling, PLACE, clock, **{"mode": OtelConfig().trace_mode, "semconv": False, **changes}
    )


@pytest.mark.parametrize("semconv", [False, True])
async def test_metrics_of_the_conventions_are_there_if_asked_for(own, semconv):
    made, read = own
    publishing = PublishTracing(trace.get_tracer("t"), made, PLACE, semconv=semconv)
    settling = Settling(trace.get_tracer("t"), made, PLACE, semconv=semconv)

    async def sent(messages): ...

    async def ended(attempt):
        return Outcome()

    await publishing([TaskMessage(name="a")], sent)
    await a_layer(made, FakeClock(), semconv=semconv)(an_attempt(), ended)
    settling(SettledBatch(seconds=0.1))

    of_the_conventions = {names.SENT_MESSAGES, names.CONSUMED_MESSAGES, names.OPERATION_DURATION, names.PROCESS_DURATION}
    assert of_the_conventions & read().keys() == (of_the_conventions if semconv else set())


async def test_dead_letters_and_redeliveries_are_counted(own):
    made, read = own

    async def died(attempt):
        return Outcome(error=ValueError(), state=TaskState.DEAD_LETTERED, reason="retries_exhausted")

    await a_layer(made, FakeClock())(an_attempt(), died)

    assert read()["chicory.dead"] == [{"task": OTHER, "reason": "retries_exhausted"}]
    assert read()["chicory.redeliveries"] == [{"queue": "mail"}]


@pytest.mark.parametrize(("stopped_for", "label"), [("lease_lost", "lost"), ("shutdown", "cancelled"), (None, "failure")])
async def test_what_was_cancelled_says_by_whom(own, spans, stopped_for, label):
    made, read = own

    async def cancelled(attempt):
        attempt.stopped_for = stopped_for
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await a_layer(made, FakeClock())(an_attempt(), cancelled)

    assert [point["outcome"] for point in read()["chicory.tasks"]] == [label]
    assert (
        spans.one("process mail").attributes.get("error.type")
        == {
            "lost": "lease_lost",
            "cancelled": None,
            "failure": "CancelledError",
        }[label]
    )


@pytest.mark.parametrize(
    ("error", "outcome"), [(BrokerConnectionError("memory://", "gone"), "unknown"), (ValueError("no"), "refused")]
)
async def test_a_publish_that_failed_is_unknown_or_refused(own, spans, error, outcome):
    made, read = own

    async def fail(messages):
        raise error

    with pytest.raises(type(error)):
        await PublishTracing(trace.get_tracer("t"), made, PLACE, semconv=False)([TaskMessage(name="a")], fail)

    assert read()["chicory.publish"] == [{"outcome": outcome}]
    assert spans.one("send default").attributes["error.type"] == type(error).__qualname__


def test_results_that_cannot_be_stored_are_counted(own):
    made, read = own

    Settling(trace.get_tracer("t"), made, PLACE, semconv=False)(
        SettledBatch(seconds=0.1, error=BackendConnectionError("redis://h", "gone"))
    )

    assert read()["chicory.result_store.errors"] == [{}]
    assert read()["chicory.broker.op"] == [{"operation": "settle", "error.type": "BackendConnectionError"}]


def test_two_hundred_tasks_have_a_label_and_the_rest_shares_one(own):
    made, _ = own

    found = [made.task_label(f"task{number}") for number in range(MOST_TASKS + 5)]

    assert found[:MOST_TASKS] == [f"task{number}" for number in range(MOST_TASKS)]
    assert found[MOST_TASKS:] == [OTHER] * 5
    assert made.task_label("task7") == "task7"
    assert made.task_label(None) == OTHER
