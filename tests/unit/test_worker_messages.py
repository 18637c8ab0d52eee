"""What a worker makes of messages that are late, unreadable, unknown, or came too often."""

import asyncio

import msgspec
import pytest

from chicory import DeliveryMode, RetryPolicy, TaskContext, TaskFailedError, TaskMessage, TaskState, Worker, WorkerConfig
from chicory.memory import MemoryBroker
from chicory.plugin import new_id
from chicory.testing import an_envelope, eventually


async def failure_of(result):
    with pytest.raises(TaskFailedError) as caught:
        await result
    return caught.value


def handle(app, task_id):
    from chicory import AsyncResult

    return AsyncResult(task_id, app.backend)


async def publish(app, *envelopes):
    client = await app.client()
    await client.connection.joined.publish(envelopes)


async def test_delayed_tasks_start_when_they_are_due(app, work, clock):
    ran = []

    @app.task
    async def note(name: str) -> None:
        ran.append(name)

    async with work(app):
        await note.options(countdown=10).delay("countdown")
        await note.options(eta=clock.now().replace(minute=1)).delay("eta")
        await clock.advance(9)
        assert ran == []

        await clock.advance(1.1)
        await eventually(lambda: ran == ["countdown"])
        await clock.advance(60)

        await eventually(lambda: ran == ["countdown", "eta"])


async def test_an_expired_message_is_not_run(app, work, clock):
    ran = []

    @app.task
    async def note() -> None:
        ran.append(1)

    async with app:
        result = await note.options(expires=30).delay()
        await clock.advance(31)
        async with work(app):
            error = await failure_of(result)

    assert (error.state, error.error_type, ran) == (TaskState.EXPIRED, "TaskExpiredError", [])


async def test_higher_priorities_and_earlier_queues_run_first(app, work):
    ran = []

    @app.task
    async def note(name: str) -> None:
        ran.append(name)

    async with app:
        await note.options(queue="low").delay("low")
        await note.options(queue="high").delay("high")
        results = [await note.options(queue="high", priority=9).delay("high and urgent")]
        async with work(app, concurrency=1, queue="high,low", prefetch=0):
            await asyncio.gather(*results)
            await eventually(lambda: len(ran) == 3)

    assert ran == ["high and urgent", "high", "low"]


async def test_unreadable_messages_fail_and_stop_nobody(app, work):
    @app.task(name="ok")
    async def ok(n: int) -> int:
        return n

    broken = [
        an_envelope(body=body)
        for body in (b"", b"\xff\x00", b"[]", b'{"chicory": 1', b'{"chicory": 99, "id": "x", "task": "ok"}')
    ]
    async with work(app) as worker:
        good = []
        for number, envelope in enumerate(broken):
            good.append(await ok.delay(number))
            await publish(app, envelope)

        assert await asyncio.gather(*good) == list(range(len(broken)))

        for envelope in broken:
            error = await failure_of(handle(app, envelope.id))
            assert error.error_type == "MessageDecodeError"
        assert worker.get_stats().tasks_failed == len(broken)


async def test_arguments_of_a_content_type_that_is_not_enabled_are_refused(app, work):
    @app.task(name="ok", retry_policy=RetryPolicy())
    async def ok() -> None: ...

    document = {"chicory": 1, "id": "a", "task": "ok", "content_type": "application/x-pickle", "packed": "gASVCg=="}
    async with work(app):
        await publish(app, an_envelope(id="a", body=msgspec.json.encode(document)))

        error = await failure_of(handle(app, "a"))

    assert error.error_type == "EncodingError"
    assert "application/x-pickle" in error.error


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(make_app, work, clock):
    old, new = make_app(), make_app()
    seen = {}

    @new.task(name="added")
    async def added(ctx: TaskContext) -> str:
        seen.update(retries=ctx.retries, headers=dict(ctx.headers))
        return "ran"

    async with work(old):
        result = await added.delay()
        await eventually(lambda: _has_hop(old, result.task_id, 1))
        await clock.advance(100)
    async with work(new):
        await clock.advance(60)

        assert await result == "ran"
    assert seen["retries"] == 0, "being put back is no retry"
    assert "unknown_since" in seen["headers"]


async def _has_hop(app, task_id, hop):
    client = await app.client()
    (record,) = await client.connection.backend.fetch([task_id])
    return record.hop >= hop


async def test_an_unknown_task_fails_after_a_while(app, work, clock):
    async with work(app, unknown_task_seconds=600):
        result = await app.send_task("never.registered")
        await eventually(lambda: _has_hop(app, result.task_id, 1))
        await clock.advance(599)
        assert await result.state() is TaskState.PENDING

        await clock.advance(60)

        error = await failure_of(result)
    assert error.error_type == "TaskNotFoundError"


async def test_a_message_delivered_too_often_fails_without_running(app, store, work, clock):
    ran = []

    @app.task
    async def killer() -> None:
        ran.append(1)

    async with app:
        result = await killer.delay()
        await deliver_in_vain(store, clock, times=5)
        async with work(app, max_deliveries=5):
            error = await failure_of(result)

    assert (error.error_type, ran) == ("DeliveryLimitError", [])
    assert "delivered 5 times" in error.error


async def deliver_in_vain(store, clock, times):
    """As a worker that dies of it each time."""
    async with MemoryBroker(store=store) as doomed:
        await doomed.prepare(["default"], 30)
        for _ in range(times):
            assert await doomed.receive(["default"], 100, 0)
            await clock.advance(31)


async def test_suspects_run_one_at_a_time_and_hold_nobody_up(app, store, work, clock):
    together, most, gate = 0, 0, asyncio.Event()

    @app.task
    async def suspect() -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await gate.wait()
        together -= 1

    @app.task
    async def innocent() -> str:
        return "ran"

    async with app:
        suspects = await suspect.delay_many([()] * 3)
        await deliver_in_vain(store, clock, times=2)
        async with work(app, concurrency=4):
            assert await (await innocent.delay()) == "ran"
            for _ in range(10):
                await clock.advance(0.5)
            assert together == 1
            gate.set()
            for _ in range(10):
                await clock.advance(0.5)
            await asyncio.gather(*suspects)

        assert most == 1
        assert {(await s.info()).retries for s in suspects} == {0}


async def test_unknown_fields_survive_retry_and_hops_never_repeat(app, work, clock, store):
    hops = []

    @app.task(name="flaky", retry_policy=RetryPolicy(max_retries=2, retry_delay=1, jitter=False))
    async def flaky() -> None:
        message = store.messages["a"]
        hops.append((message.envelope.hop, msgspec.json.decode(message.envelope.body).get("from_the_future")))
        raise OSError

    document = {"chicory": 1, "id": "a", "task": "flaky", "arguments": {"args": [], "kwargs": {}}, "from_the_future": [1, 2]}
    async with work(app):
        await publish(app, an_envelope(id="a", body=msgspec.json.encode(document)))
        for _ in range(3):
            await clock.advance(5)

        await failure_of(handle(app, "a"))

    assert hops == [(0, [1, 2]), (1, [1, 2]), (2, [1, 2])]


async def test_unknown_fields_survive_being_put_back(make_app, work, clock, store):
    old = make_app()
    document = {"chicory": 1, "id": "a", "task": "new", "arguments": {"args": [], "kwargs": {}}, "from_the_future": {"x": 1}}
    async with work(old):
        await publish(old, an_envelope(id="a", body=msgspec.json.encode(document)))
        await eventually(lambda: _has_hop(old, "a", 1))

    body = msgspec.json.decode(store.messages["a"].envelope.body)

    assert body["from_the_future"] == {"x": 1}


async def test_the_same_id_runs_once_and_gives_the_same_result(app, work):
    ran = []

    @app.task
    async def order(n: int) -> int:
        ran.append(n)
        return n

    async with work(app):
        first = await order.options(task_id="order-17").delay(1)
        assert await first == 1
        second = await order.options(task_id="order-17").delay(2)

        assert await second == 1
    assert ran == [1]


async def test_a_message_made_by_hand_is_run(app, work):
    @app.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    message = TaskMessage(id=new_id(), name="add", args=[1], kwargs={"b": 2}, retries=0, eta=None)
    async with work(app, queue="high-priority"):
        await app.broker.publish(message, queue="high-priority")

        assert await handle(app, message.id) == 3


async def test_what_ignores_its_result_keeps_its_state(app, work, clock):
    @app.task(ignore_result=True)
    async def fire() -> int:
        return 3

    async with work(app):
        result = await fire.delay()
        await eventually(lambda: result.ready())

        assert await result.state() is TaskState.SUCCESS
        assert (await result.info()).value is None
        with pytest.raises(Exception, match="ignores its result"):
            await result


async def test_no_more_is_received_than_slots_are_free(app, work, store):
    gate = asyncio.Event()

    @app.task
    async def slow() -> None:
        await gate.wait()

    async with app:
        results = await slow.delay_many([()] * 50)
        async with work(app, concurrency=2):
            await eventually(lambda: len(store.leased) == 2)
            for _ in range(20):
                await asyncio.sleep(0)
            assert len(store.leased) == 2
            gate.set()
            await asyncio.gather(*results)


# --- at most once --------------------------------------------------------------------------------


async def test_at_most_once_is_settled_before_it_runs(app, work, store):
    seen = []

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def pay() -> str:
        seen.append((len(store.messages), store.records[result.task_id][0].state))
        return "paid"

    async with app:
        result = await pay.delay()
        async with work(app):
            assert await result == "paid"

    assert seen == [(0, TaskState.STARTED)]


async def test_at_most_once_is_not_retried(app, work):
    runs = []

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def pay(ctx: TaskContext) -> None:
        runs.append(1)
        ctx.retry()

    async with work(app):
        error = await failure_of(await pay.delay())

    assert (error.error_type, len(runs)) == ("MaxRetriesExceededError", 1)


async def test_at_most_once_whose_worker_is_gone_ends_as_lost(app, make_app, clock):
    gate = asyncio.Event()

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def pay() -> None:
        await gate.wait()

    observer = make_app()
    async with observer, app:
        worker = Worker(app, WorkerConfig(heartbeat_interval=10, heartbeat_ttl=30))
        await worker.start()
        result = await pay.delay()
        await eventually(lambda: _is_started(result))
        dead = worker._main  # as if its process were killed: nothing is handed back, nothing is said
        (running,) = worker._pump._running.values()
        worker._pump._cancel = lambda *_: None
        worker._say_stopped = _nothing
        await clock.advance(25)
        assert await observer.backend.cleanup_stale_clients(stale_seconds=60) == 0

        dead.cancel()
        await asyncio.wait([dead])
        await clock.advance(100)

        assert await observer.backend.cleanup_stale_clients(stale_seconds=60) == 1
        error = await failure_of(handle(observer, result.task_id))
        assert error.error_type == "WorkerLost"
        assert worker.worker_id in error.error
        running.runner.cancel()
        await asyncio.wait([running.runner])


async def _nothing(_connection):
    return None


async def _is_started(result):
    return await result.state() is TaskState.STARTED


async def test_at_most_once_stopped_by_a_shutdown_is_not_put_back(app, store, clock):
    gate = asyncio.Event()

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def pay() -> None:
        await gate.wait()

    async with app:
        worker = Worker(app, WorkerConfig())
        await worker.start()
        result = await pay.delay()
        await eventually(lambda: _is_started(result))

        await worker.stop(timeout=0)

        error = await failure_of(result)
    assert error.error_type == "WorkerLost"
    assert not store.messages
