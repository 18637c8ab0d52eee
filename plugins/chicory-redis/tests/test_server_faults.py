"""The server ends, comes back, forgets, or has no room; with real workers under load."""

import asyncio

import pytest

from chicory import Chicory, Worker
from chicory.errors import BrokerConnectionError, BrokerFullError, ResultNotFoundError
from chicory.plugin import Settlement, new_id
from chicory.testing import an_envelope, eventually
from chicory.testing.faults.chaos import app_on
from chicory.testing.faults.ledger import Ledger
from chicory.testing.faults.workers import Workers
from chicory_redis import RedisBroker


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield ledger
    ledger.close()


@pytest.fixture
def start(tmp_path, ledger):
    """Starts workers of the fault suite's workload on a server."""
    started = []

    async def start(server, count=1, **environment):
        workers = Workers(tmp_path, ledger, {"CHICORY_WORKER_LEASE_SECONDS": "2", "CHICORY_BROKER_URL": server.url})
        started.append(workers)
        return await workers.start(count, **environment)

    yield start
    for workers in started:
        workers.end()


async def send(app, count):
    """Tasks that are sent in any case: a call that failed is repeated under its id."""
    results = []
    for _ in range(count):
        task_id = new_id()
        while True:
            try:
                results.append(await app.send_task("faults.work", [0.0], task_id=task_id))
                break
            except BrokerConnectionError:
                await asyncio.sleep(0.05)
    return results


@pytest.mark.timeout(120)
async def test_a_server_that_is_killed_five_times_loses_nothing_that_it_keeps(make_server, start, ledger):
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    (worker,) = await start(server)
    async with app_on({"CHICORY_BROKER_URL": server.url}) as app:
        sending = asyncio.create_task(send(app, 1500))
        for _ in range(5):
            await asyncio.sleep(0.5)
            server.kill()
            await asyncio.sleep(0.3)
            server.start()
        results = await sending

        values = await asyncio.gather(*(eventually(lambda r=r: value_of(r), within=60) for r in results))

        assert set(values) == {worker.pid}
        assert len({fact.task_id for fact in ledger.facts("start")}) == 1500
        await eventually(lambda: is_empty(app), within=20)


async def value_of(result):
    try:
        return await result.get(timeout=30)
    except ConnectionError:
        return None


async def is_listened_to(broker, task_id):
    return await broker.server.ask("PUBSUB", "CHANNELS", f"*:done:{task_id}")


async def is_empty(app):
    stats = await app.broker.stats()
    return not stats.ready + stats.delayed + stats.running


@pytest.mark.timeout(60)
async def test_after_a_server_that_kept_nothing_the_worker_goes_on_and_waiters_hear_of_it(make_server, start):
    server = make_server()
    (worker,) = await start(server)
    async with app_on({"CHICORY_BROKER_URL": server.url}) as app:
        lost = await app.send_task("faults.work", countdown=3600.0)
        waiting = asyncio.create_task(lost.get(timeout=30))
        async with RedisBroker(server.place()) as other:
            await eventually(lambda: is_listened_to(other, lost.task_id))

        server.kill()
        server.start()

        with pytest.raises((ConnectionError, ResultNotFoundError)):
            await waiting
        result = (await send(app, 1))[0]
        assert await eventually(lambda: value_of(result), within=5) == worker.pid


@pytest.mark.parametrize("command", ["FLUSHALL", "SCRIPT FLUSH"])
async def test_a_server_that_forgets_is_used_as_before(make_server, start, command):
    server = make_server()
    (worker,) = await start(server)
    async with app_on({"CHICORY_BROKER_URL": server.url}) as app:
        assert await (await send(app, 1))[0].get(timeout=10) == worker.pid

        async with RedisBroker(server.place()) as other:
            await other.server.ask(*command.split(" "))

        results = await send(app, 50)
        assert {await result.get(timeout=10) for result in results} == {worker.pid}


async def test_a_server_without_room_refuses_calls_and_lets_work_end(make_server):
    server = make_server("--maxmemory-policy", "noeviction")
    async with RedisBroker(server.place(prefix="chicory")) as broker:
        await broker.prepare(["default"], 30)
        used = (await broker.server.ask("INFO", "memory"))["used_memory"]
        await broker.server.ask("CONFIG", "SET", "maxmemory", used + 8 * 1024**2)
        with pytest.raises(BrokerFullError, match="no room"):
            for _ in range(100_000):
                await broker.publish([an_envelope(body=bytes(300)) for _ in range(20)])

        ended = 0
        while deliveries := await broker.receive(["default"], 2000, 0):
            answers = await broker.settle([Settlement(delivery=delivery) for delivery in deliveries])
            assert set(answers) == {"done"}
            ended += len(answers)

        assert ended > 2000
        await broker.publish([an_envelope()])


async def test_a_user_of_the_server_who_may_only_use_the_prefix_can_do_everything(make_server):
    server = make_server()
    async with RedisBroker(server.place()) as admin:
        rules = ["on", ">secret", "resetkeys", "~shop:*", "resetchannels", "&shop:*", "-@all"]
        allowed = ["+@read", "+@write", "+@stream", "+@scripting", "+@pubsub", "+@connection", "-@dangerous", "+info", "+time"]
        await admin.server.ask("ACL", "SETUSER", "shop", *rules, *allowed)
    address = server.url.replace("redis://", "redis://shop:secret@") + "/0?key_prefix=shop"
    app = Chicory(broker=address)

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with app, Worker(app):
        assert await (await add.delay(1, 2)).get(timeout=10) == 3
        assert (await app.broker.stats()).running == 0
        later = await add.options(countdown=3600).delay(1, 2)
        assert await app.broker.purge() == 1
        with pytest.raises(ResultNotFoundError):
            await later.get(timeout=5)
    async with Chicory(broker=address.replace("key_prefix=shop", "key_prefix=other")) as stranger:
        with pytest.raises(BrokerConnectionError, match="No permissions|NOPERM|permission"):
            await stranger.send_task("add", [1, 2])
