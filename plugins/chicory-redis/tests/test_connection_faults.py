"""The way to the server breaks, in each of the ways it can, with real workers behind a proxy."""

import asyncio

import pytest

from chicory.errors import BrokerConnectionError
from chicory.plugin import new_id
from chicory.testing import ProxyMode, TcpProxy, eventually
from chicory.testing.faults.chaos import app_on
from chicory.testing.faults.ledger import Ledger
from chicory.testing.faults.workers import Workers

LEASE = 1.5


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    yield ledger
    ledger.close()


@pytest.fixture
def workers(tmp_path, ledger):
    workers = Workers(tmp_path, ledger, {"CHICORY_WORKER_LEASE_SECONDS": str(LEASE)})
    yield workers
    workers.end()


@pytest.fixture
async def proxy(redis_server):
    async with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def through(proxy, place):
    """Settings of whoever talks through the proxy; it is told soon that nobody answers."""
    return {"CHICORY_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0?key_prefix={place.prefix}&socket_timeout=0.5"}


@pytest.fixture
def direct(redis_server, place):
    return {"CHICORY_BROKER_URL": f"{redis_server.url}/0?key_prefix={place.prefix}"}


async def test_a_half_open_connection_of_an_idle_worker_is_noticed(workers, proxy, through, direct):
    (worker,) = await workers.start(1, **through)
    await proxy.set(ProxyMode.BLACKHOLE)
    await eventually(lambda: worker.said("broker_lost"), within=15)

    async with app_on(direct) as app:
        result = await app.send_task("faults.work")
        await proxy.set(ProxyMode.PASS)

        assert await result.get(timeout=20) == worker.pid
    assert worker.exit_code is None


async def test_a_worker_that_is_cut_off_stops_its_task_before_a_rival_starts_it(workers, ledger, proxy, through, direct):
    (cut_off,) = await workers.start(1, **through)
    async with app_on(direct) as app:
        result = await app.send_task("faults.work", [LEASE * 4])
        await eventually(lambda: ledger.facts("start"), within=10)
        (rival,) = await workers.start(1, **direct)

        await proxy.set(ProxyMode.BLACKHOLE)
        await eventually(lambda: len(ledger.facts("start")) == 2, within=LEASE * 4)
        await asyncio.sleep(LEASE)  # two leases in all without an answer
        await proxy.set(ProxyMode.PASS)

        (ended,) = ledger.facts("cancelled")
        first, second = ledger.facts("start")
        assert (first.pid, ended.pid, second.pid) == (cut_off.pid, cut_off.pid, rival.pid)
        assert ended.at < second.at
        assert await result.get(timeout=30) == rival.pid
        assert len(ledger.facts("start")) == 2
        assert (await result.info()).retries == 0

        rival.kill()
        assert await (await app.send_task("faults.work")).get(timeout=20) == cut_off.pid, "it works again"


async def test_a_publish_whose_answer_is_cut_off_is_one_task(workers, ledger, proxy, through, direct):
    await workers.start(1, **direct)
    async with app_on(through) as app:
        await (await app.send_task("faults.work")).get(timeout=10)
        await proxy.set(ProxyMode.CUT_REPLY, after=0)

        result = await app.send_task("faults.work")

        await result.get(timeout=10)
        assert len([fact for fact in ledger.facts("start") if fact.task_id == result.task_id]) == 1


async def test_a_publish_that_was_never_answered_may_be_repeated_under_its_id(workers, ledger, proxy, through, direct):
    await workers.start(1, **direct)
    task_id = new_id()
    async with app_on(through) as app:
        await (await app.send_task("faults.work")).get(timeout=10)
        await proxy.set(ProxyMode.ONE_WAY)
        with pytest.raises(BrokerConnectionError):
            await app.send_task("faults.work", task_id=task_id)
        await eventually(lambda: any(fact.task_id == task_id for fact in ledger.facts("end")), within=10)
        await proxy.set(ProxyMode.PASS)

        result = await app.send_task("faults.work", task_id=task_id)

        await result.get(timeout=10)
        assert len([fact for fact in ledger.facts("start") if fact.task_id == task_id]) == 1


async def test_a_slow_server_costs_no_lease(workers, ledger, proxy, through, direct):
    """Each way takes the thirtieth part of a lease: of one of 30 s that would be a second."""
    await workers.start(1, **through)
    await proxy.set(ProxyMode.LATENCY, seconds=LEASE / 30)
    async with app_on(direct) as app:
        results = [await app.send_task("faults.work", [LEASE * 2]) for _ in range(3)]

        await asyncio.gather(*(result.get(timeout=30) for result in results))

        assert len(ledger.facts("start")) == 3
