"""What an older namesake did wrong on Redis, by its number in the record of its fifty defects.

Those that are not of Redis alone have their tests in the suites: numbers 2, 4, 7, 8, 9, 12 to 15 and 24 in `FaultSuite`, 6, 16,
18 and 23 in `BrokerSuite`, 25 to 28 and 31 in `BackendSuite` and in the tests of the core.
"""

import asyncio
import os

import pytest

from chicory import Chicory, DeliveryMode, RetryPolicy, TaskContext, Worker, WorkerConfig
from chicory.errors import ResultIgnoredError
from chicory.plugin import Settlement, new_id
from chicory.testing import an_envelope, eventually
from chicory_redis import RedisBroker


@pytest.fixture
def url(redis_server, place):
    return f"{redis_server.url}/0?key_prefix={place.prefix}"


async def keys(place):
    async with RedisBroker(place) as broker:
        found = await broker.server.ask("KEYS", f"{place.prefix}:*")
    return {key.decode().removeprefix(place.prefix) for key in found}


async def pending(broker, queue):
    stats = await broker.stats(queue)
    return stats.ready + stats.running


async def test_1_a_task_of_another_queue_is_settled_there(url):
    app = Chicory(broker=url)

    @app.task(queue="mail")
    async def send() -> str:
        return "sent"

    async with app, Worker(app, WorkerConfig(queue="mail")):
        assert await (await send.delay()).get(timeout=10) == "sent"

        await eventually(lambda: is_zero(app, "mail"), within=5)
        assert await pending(app.broker, "default") == 0


async def is_zero(app, queue):
    return not await pending(app.broker, queue)


async def test_3_a_worker_takes_no_more_than_it_can_soon_start(place):
    app = Chicory(broker=RedisBroker(place))
    release = asyncio.Event()

    @app.task
    async def hold() -> None:
        await release.wait()

    async with app:
        await hold.delay_many([() for _ in range(300)])
        async with Worker(app, WorkerConfig(concurrency=2)) as worker:
            await eventually(lambda: worker.get_stats().active_tasks == 2, within=5)
            stats = await app.broker.stats()
            assert (stats.running, stats.ready) == (2, 298)
            release.set()


async def test_5_no_length_of_a_stream_drops_a_message(place):
    async with RedisBroker(place) as broker:
        for _ in range(30):
            await broker.publish([an_envelope() for _ in range(500)])

        assert (await broker.stats("default")).ready == 15_000


async def test_6_a_retry_stays_in_its_queue_with_its_priority(url):
    app = Chicory(broker=url)
    tries = []

    @app.task(queue="high", priority=7, retry_policy=RetryPolicy(max_retries=1, retry_delay=0.01))
    async def flaky(ctx: TaskContext) -> int:
        tries.append(ctx.queue)
        if not ctx.retries:
            raise OSError
        return ctx.retries

    async with app:
        result = await flaky.delay()
        async with Worker(app, WorkerConfig(queue="high")):
            assert await result.get(timeout=10) == 1
    assert tries == ["high", "high"]


async def test_10_an_idle_worker_outlives_every_time_out_of_the_client_library(url):
    """redis-py 8 ends a read after five seconds unless it is told otherwise."""
    app = Chicory(broker=url)

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with app, Worker(app) as worker:
        await asyncio.sleep(6)
        assert worker.get_stats().is_running
        assert await (await add.delay(1, 2)).get(timeout=5) == 3


async def test_11_a_task_that_runs_at_most_once_leaves_nothing_pending(url, place):
    app = Chicory(broker=url)

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def ping() -> str:
        return "pong"

    async with app, Worker(app):
        results = await ping.delay_many([() for _ in range(5)])
        assert [await result.get(timeout=10) for result in results] == ["pong"] * 5
        assert await pending(app.broker, "default") == 0
    assert ":held" not in await keys(place)


async def test_17_clean_up_is_for_any_queue(place):
    async with RedisBroker(place) as broker:
        gone = RedisBroker(place)
        await gone.__aenter__()
        await gone.prepare(["mail"], 0.3)
        await gone.server.close()

        assert await eventually(lambda: broker.cleanup("mail", 0.05), within=5) == 1
        assert await broker.cleanup("default", 0.05) == 0


async def test_24_a_purge_takes_delayed_messages_too(url):
    async with Chicory(broker=url) as app:
        for countdown in (None, 3600.0):
            await app.send_task("later", countdown=countdown)

        assert await app.broker.purge() == 2
        assert (await app.broker.stats()).delayed == 0


async def test_26_a_task_that_ignores_its_result_ends_the_waiting_for_it(url):
    app = Chicory(broker=url)

    @app.task(ignore_result=True)
    async def quiet() -> None: ...

    async with app, Worker(app):
        with pytest.raises(ResultIgnoredError):
            await (await quiet.delay()).get(timeout=10)


async def test_32_what_has_ended_is_not_counted(place):
    async with RedisBroker(place) as broker:
        await broker.publish([an_envelope() for _ in range(5)])
        deliveries = await broker.receive(["default"], 5, 1)
        await broker.settle([Settlement(delivery=delivery) for delivery in deliveries])

        stats = await broker.stats("default")
        assert (stats.ready, stats.delayed, stats.running) == (0, 0, 0)
        assert not {key for key in await keys(place) if ":s:" in key and await length(broker, key)}


async def length(broker, key):
    return await broker.server.ask("XLEN", f"{broker.place.prefix}{key}")


async def test_46_two_applications_on_one_server_do_not_see_each_other(redis_server, place):
    async with RedisBroker(place) as ours, RedisBroker(redis_server.place()) as theirs:
        await ours.publish([an_envelope()])

        assert await theirs.receive(["default"], 1, 0.05) == []
        assert await theirs.queues() == []
    assert {key.partition("{")[0] for key in await keys(place)} <= {":", ":queues"}


async def test_after_a_drain_only_records_are_left_and_they_expire(url, place):
    """Numbers 5 and 29, and the leak of every entry that was only acknowledged."""
    app = Chicory(broker=url)

    @app.task
    async def work(size: int) -> bytes:
        return os.urandom(size)

    async with app, Worker(app):
        results = [*await work.delay_many([(100,)] * 50), await work.options(task_id=new_id(), priority=3).delay(10)]
        assert [len(await result.get(timeout=10)) for result in results] == [100] * 50 + [10]

    left = {key for key in await keys(place) if key.startswith((":r:", ":{default}:i:"))}
    assert left == {f":r:{result.task_id}" for result in results}
    async with RedisBroker(place) as broker:
        lives = [await broker.server.ask("PTTL", f"{place.prefix}{key}") for key in left]
        assert all(0 < life <= 3_600_000 for life in lives)
        streams = {key for key in await keys(place) if ":s:" in key}
        assert sum([await length(broker, key) for key in streams]) == 0
