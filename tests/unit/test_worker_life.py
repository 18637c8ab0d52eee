"""Starting, draining and stopping a worker; what it says about itself; what happens when parts of it fail."""

import asyncio

import pytest

from chicory import (
    BrokerConnectionError,
    Chicory,
    ChicoryConfig,
    RetryPolicy,
    TaskContext,
    TaskFailedError,
    TaskState,
    Worker,
    WorkerConfig,
)
from chicory.errors import CapabilityError, PluginNotFoundError
from chicory.memory import MemoryBackend, MemoryBroker, MemoryStore
from chicory.plugin import Capabilities, current_attempt
from chicory.testing import eventually


async def _is_started(result):
    return await result.state() is TaskState.STARTED


# --- draining ------------------------------------------------------------------------------------


async def test_a_drain_lets_running_tasks_finish_and_puts_the_rest_back(app, store):
    gate = asyncio.Event()

    @app.task
    async def slow(n: int) -> int:
        await gate.wait()
        return n

    async with app:
        worker = Worker(app, WorkerConfig(concurrency=2, prefetch=64))
        worker_pace = 4
        await worker.start()
        worker._pump._pace._now = worker_pace  # as if it had been quick: it receives ahead
        results = await slow.delay_many([(n,) for n in range(6)])
        await eventually(lambda: len(store.leased) == 6)

        stopping = asyncio.ensure_future(worker.stop())
        await eventually(lambda: len(store.leased) == 2)
        put_back = [m for m in store.messages.values() if m.receipt is None]
        gate.set()
        await stopping

        assert sorted([await r for r in results[:2]]) == [0, 1]
        assert [(m.envelope.hop, m.count) for m in put_back] == [(1, 0)] * 4
        assert [await r.state() for r in results[2:]] == [TaskState.PENDING] * 4


async def test_what_does_not_finish_in_time_is_cancelled_and_put_back_uncounted(app, make_app, clock, work):
    tries = []

    @app.task(name="slow", retry_policy=RetryPolicy(max_retries=1))
    async def slow(ctx: TaskContext) -> int:
        tries.append(ctx.retries)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return ctx.retries

    async with app:
        worker = Worker(app, WorkerConfig(shutdown_timeout=30))
        await worker.start()
        result = await slow.delay()
        await eventually(lambda: _is_started(result))
        stopping = asyncio.ensure_future(worker.stop())
        await clock.advance(29)
        assert not stopping.done()

        await clock.advance(1.1)
        await stopping

        assert await result.state() is TaskState.PENDING
        async with work(app):
            assert await result == 0
    assert tries == [0, 0]


async def test_cancelling_a_worker_puts_back_what_runs(app, store):
    @app.task
    async def slow() -> None:
        await asyncio.Event().wait()

    async with app:
        running = asyncio.ensure_future(Worker(app).run())
        result = await slow.delay()
        await eventually(lambda: _is_started(result))

        running.cancel()
        await asyncio.wait([running])

        assert await result.state() in (TaskState.PENDING, TaskState.STARTED)
        assert len(store.messages) == 1


async def test_hurrying_ends_the_wait(app):
    @app.task
    async def slow() -> None:
        await asyncio.Event().wait()

    async with app:
        worker = Worker(app, WorkerConfig(shutdown_timeout=3600))
        await worker.start()
        result = await slow.delay()
        await eventually(lambda: _is_started(result))
        stopping = asyncio.ensure_future(worker.stop())
        await asyncio.sleep(0)

        worker.hurry()

        await asyncio.wait_for(stopping, 5)
        assert await result.state() is TaskState.PENDING


async def test_stopping_is_idempotent_and_may_come_first(app):
    worker = Worker(app)
    await worker.stop()
    await worker.start()
    await worker.start()
    assert worker.get_stats().is_running

    await asyncio.gather(worker.stop(), worker.stop())
    await worker.stop()

    assert not worker.get_stats().is_running


async def test_a_worker_may_be_started_again(app, clock):
    @app.task
    async def one() -> int:
        return 1

    worker = Worker(app)
    async with app:
        for _ in range(2):
            async with worker:
                assert await (await one.delay()) == 1


async def test_a_worker_leaves_the_clients_connection_alone(app):
    @app.task
    async def one() -> int:
        return 1

    async with app:
        async with Worker(app):
            pass

        result = await one.delay()

        assert await result.state() is TaskState.PENDING


async def test_nothing_is_left_after_a_drain(app, store, work):
    @app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=0))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.retries == 0:
            raise OSError

    async with work(app):
        await asyncio.gather(*await flaky.delay_many([()] * 20))

    assert (len(store.messages), len(store.leased), store.consumers) == (0, 0, {})
    assert {r.state for r, _ in store.records.values()} == {TaskState.SUCCESS}


# --- saying that it lives --------------------------------------------------------------------------


async def test_heartbeats_say_what_a_worker_does(app, clock):
    gate = asyncio.Event()

    @app.task
    async def slow() -> None:
        await gate.wait()

    async with app:
        async with Worker(app, WorkerConfig(heartbeat_interval=10, heartbeat_ttl=30, queue="a,b", concurrency=3)) as worker:
            (stats,) = await app.backend.get_active_workers()
            assert (stats.worker_id, stats.queues, stats.queue, stats.concurrency) == (worker.worker_id, ("a", "b"), "a,b", 3)
            result = await slow.options(queue="b").delay()
            await eventually(lambda: _is_started(result))

            await clock.advance(10.1)

            beat = await eventually(lambda: _beat_with(app, worker.worker_id, active=1))
            assert (beat.is_running, beat.broker, beat.backend) == (True, "memory://", "memory://")
            gate.set()
            await result

        last = await app.backend.get_heartbeat(worker.worker_id)
        assert (last.is_running, last.active_tasks, last.tasks_processed) == (False, 0, 1)
        assert await app.backend.get_active_workers() == []
        assert await app.backend.get_heartbeat("unknown") is None


async def _beat_with(app, worker_id, active):
    stats = await app.backend.get_heartbeat(worker_id)
    return stats if stats.active_tasks == active else None


async def test_a_worker_that_is_gone_is_forgotten(app, clock):
    async with app:
        worker = Worker(app, WorkerConfig(heartbeat_interval=10, heartbeat_ttl=30))
        async with worker:
            pass
        await clock.advance(50)
        assert await app.backend.cleanup_stale_clients(stale_seconds=60) == 0

        await clock.advance(11)

        assert await app.backend.cleanup_stale_clients(stale_seconds=60) == 1
        assert await app.backend.get_heartbeat(worker.worker_id) is None


async def test_health_names_the_part_that_is_ill(app, monkeypatch):
    async with app, Worker(app) as worker:
        health = await worker.healthcheck()
        assert (health.is_running, health.broker.connected, health.backend.connected, health.error) == (True, True, True, None)

        async def down(_self):
            raise BrokerConnectionError("memory://", "refused")

        monkeypatch.setattr(MemoryBroker, "health", down)
        health = await worker.healthcheck()

    assert (health.broker.connected, health.backend.connected) == (False, True)
    assert "memory:// cannot be reached: refused" in health.error


async def test_events_tell_sinks_every_change_of_state(make_app, work, monkeypatch):
    events = []
    app = make_app()
    monkeypatch.setattr(app, "event_sinks", lambda: (events.append,))

    @app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=0))
    async def flaky(ctx: TaskContext) -> None:
        if ctx.retries == 0:
            raise OSError

    async with work(app):
        await (await flaky.delay())

    told = [event.kind for event in events]
    assert told == [
        "worker.started",
        "task.started",
        "task.retried",
        "task.started",
        "task.succeeded",
        "worker.draining",
        "worker.stopped",
    ]
    assert events[1].task == flaky.name


async def test_a_sink_that_raises_harms_nobody(make_app, work, monkeypatch):
    def broken(_event):
        raise RuntimeError("no room in the log")

    app = make_app()
    monkeypatch.setattr(app, "event_sinks", lambda: (broken,))

    @app.task
    async def one() -> int:
        return 1

    async with work(app):
        assert await (await one.delay()) == 1


# --- configuration that cannot work ----------------------------------------------------------------


def test_dead_letters_without_their_plugin_are_refused(app):
    with pytest.raises(PluginNotFoundError, match="use_dead_letter_queue.*pip install chicory-dlq"):
        Worker(app, WorkerConfig(use_dead_letter_queue=True))


async def test_a_worker_that_cannot_connect_fails_at_start_and_leaves_nothing_open(app, monkeypatch):
    async def refuse(_self):
        raise BrokerConnectionError("memory://", "refused")

    monkeypatch.setattr(MemoryBroker, "__aenter__", refuse)
    worker = Worker(app)

    with pytest.raises(BrokerConnectionError, match="refused"):
        await worker.start()

    assert not worker.get_stats().is_running
    await worker.stop()


async def test_a_defect_in_the_broker_ends_the_worker(app, monkeypatch):
    async def defect(_self, *_arguments):
        raise ZeroDivisionError("a bug in a plugin")

    monkeypatch.setattr(MemoryBroker, "receive", defect)
    worker = Worker(app)

    with pytest.raises(ZeroDivisionError):
        await worker.run()

    assert not worker.get_stats().is_running


async def test_the_workers_settings_may_differ_from_the_apps(make_app):
    config = ChicoryConfig(worker=WorkerConfig(concurrency=3, queue="a"))
    app = make_app(config=config)

    assert Worker(app).config.concurrency == 3
    assert Worker(app, WorkerConfig(concurrency=5)).config.concurrency == 5
    assert config.worker.concurrency == 3


async def test_a_worker_takes_the_recorded_lease_and_says_so(app, make_app, store, caplog):
    async with Worker(app, WorkerConfig(lease_seconds=30)), Worker(make_app(), WorkerConfig(lease_seconds=5)):
        assert store.leases == {"default": 30}

    assert "lease_is_recorded_otherwise" in caplog.text
    assert "wanted=5.0" in caplog.text
    assert "in_force=30" in caplog.text


# --- brokers that can do less -----------------------------------------------------------------------


class PlainBroker:
    """The memory broker without delays, without a fence and without a window for repeats."""

    capabilities = Capabilities(delayed=False, priorities=1, dedup_window=0, atomic_publish=False, fenced=False, browse=False)

    def __init__(self, store):
        self._inner = MemoryBroker(store=store)

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def __aenter__(self):
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *exc):
        await self._inner.__aexit__(*exc)

    def twin(self):
        twin = PlainBroker(self._inner.store)
        twin._inner = self._inner.twin()
        return twin


@pytest.fixture
def plain_app(clock):
    return Chicory(broker=PlainBroker(MemoryStore(clock)), backend=MemoryBackend(clock), clock=clock)


async def test_a_broker_without_delays_refuses_a_countdown(plain_app):
    @plain_app.task
    async def one() -> int:
        return 1

    async with plain_app:
        with pytest.raises(CapabilityError, match="does not offer delayed messages"):
            await one.options(countdown=5).delay()


async def test_on_a_broker_without_delays_the_worker_holds_a_retry(plain_app, work, clock):
    @plain_app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=10, jitter=False))
    async def flaky(ctx: TaskContext) -> int:
        if ctx.retries == 0:
            raise OSError
        return ctx.retries

    async with work(plain_app):
        result = await flaky.delay()
        await eventually(lambda: plain_app.broker.stats(), within=1)
        await clock.advance(9)
        assert not await result.ready()

        await clock.advance(1.1)

        assert await result == 1


async def test_what_such_a_worker_holds_goes_back_when_it_stops(plain_app, clock, work):
    @plain_app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=1000, jitter=False))
    async def flaky(ctx: TaskContext) -> int:
        if ctx.retries == 0:
            raise OSError
        return ctx.retries

    async with plain_app:
        async with Worker(plain_app):
            result = await flaky.delay()
            await clock.advance(5)
        async with work(plain_app):
            assert await result == 1


async def test_without_backend_tasks_run_and_results_are_refused(clock, work):
    store = MemoryStore(clock)
    ran = asyncio.Event()
    app = Chicory(broker=MemoryBroker(store=store), backend=None, clock=clock)

    @app.task
    async def one() -> int:
        ran.set()
        return 1

    async with app, Worker(app) as worker:
        result = await one.delay()
        await ran.wait()

        with pytest.raises(Exception, match="no result backend"):
            await result
        assert (await worker.healthcheck()).backend is None
    assert not store.messages


async def test_failure_is_told_by_type_alone_in_the_log(app, work, caplog):
    @app.task
    async def leak() -> None:
        raise ValueError("password=hunter2")

    async with work(app):
        with pytest.raises(TaskFailedError):
            await (await leak.delay())

    assert "ValueError" in caplog.text
    assert "hunter2" not in caplog.text


async def test_what_stood_in_line_when_the_process_stood_still_does_not_start(app, clock):
    """Both got their turn at once; while the first had it, the lease of the second ended, and somebody else may run it."""
    starts = []

    @app.task
    async def stand_still(n: int) -> None:
        starts.append((n, current_attempt.get().delivery.delivery_count))
        if len(starts) == 1:
            clock._elapsed += 60.0  # as a process that was stopped sees it, once it goes on

    async with app, Worker(app, WorkerConfig(concurrency=2, lease_seconds=30.0)):
        results = await stand_still.delay_many([(1,), (2,)])
        for result in results:
            await result.get(timeout=5)

    assert starts[0] == (1, 1)
    assert sorted(starts[1:]) == [(1, 2), (2, 2)]
