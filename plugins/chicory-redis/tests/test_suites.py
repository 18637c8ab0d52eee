"""Redis passes the suites of the core, unchanged: on the server's clock, so that the waiting is real."""

import asyncio
import time

import pytest
from msgspec.structs import replace

from chicory.errors import BackendConnectionError
from chicory.plugin import SYSTEM_CLOCK
from chicory.testing import BackendSuite, BrokerSuite, JoinedSuite, PluginSuite, a_record, an_envelope
from chicory_redis import RedisBackend, RedisBackendConfig, RedisBroker, RedisBrokerConfig


class OnServerTime:
    @pytest.fixture
    def clock(self):
        return SYSTEM_CLOCK

    @pytest.fixture
    def lease(self):
        return 0.5


class TestRedisBroker(OnServerTime, BrokerSuite):
    @pytest.fixture
    def make_broker(self, place, monkeypatch):
        monkeypatch.setattr("chicory_redis.broker.DEDUP_WINDOW", 0.5)
        monkeypatch.setattr(RedisBroker, "capabilities", replace(RedisBroker.capabilities, dedup_window=0.5))
        return lambda: RedisBroker(place)


class TestRedisBackend(OnServerTime, BackendSuite):
    @pytest.fixture
    def ttl(self):
        return 0.4

    @pytest.fixture
    def make_backend(self, place):
        return lambda: RedisBackend(place)

    async def test_closing_ends_at_whatever_moment_it_comes(self, make_backend):
        """A cancelled wait that had ended in the same moment would go on for ever (as asyncio.wait_for does before 3.12)."""
        for number in range(60):
            async with asyncio.timeout(5), make_backend() as backend:
                record = a_record()
                waiting = asyncio.ensure_future(backend.wait(record.id, exists=False))
                await asyncio.sleep(0.0005 * (number % 7))
                await backend.store([record])
                assert await waiting == record

    async def test_many_calls_at_once_share_few_connections(self, make_backend):
        async with make_backend() as backend:
            assert await asyncio.gather(*(backend.fetch([str(n)]) for n in range(1000))) == [[None]] * 1000
            assert (await backend.server.ask("CLIENT", "LIST")).count(b"addr=") <= 20

    async def test_closing_does_not_leave_anybody_waiting(self, make_backend):
        async with make_backend() as backend:
            waiting = asyncio.ensure_future(backend.wait("later", exists=False))
            await asyncio.sleep(0.05)

        with pytest.raises(BackendConnectionError, match="closed"):
            await waiting


class TestRedisJoined(OnServerTime, JoinedSuite):
    @pytest.fixture
    def make_pair(self, place):
        return lambda: (RedisBroker(place), RedisBackend(place))


class TestRedisInTwoDatabases(OnServerTime, JoinedSuite):
    """Messages in one database of a server, results in another, under another prefix: still one step."""

    @pytest.fixture
    def make_pair(self, place):
        results = replace(place, db=1, prefix=f"{place.prefix}-results")
        return lambda: (RedisBroker(place), RedisBackend(results))


class TestRedisApart(OnServerTime, JoinedSuite):
    """Two servers: ``store_then_settle``. (The second is the same one, by another name.)"""

    @pytest.fixture
    def make_pair(self, place):
        there = replace(place, host="elsewhere", db=1)
        return lambda: (RedisBroker(place), RedisBackend(there))


class TestRedisPlugin(PluginSuite):
    name = "redis"
    client_libraries = ("redis",)
    settings = (RedisBrokerConfig, RedisBackendConfig)


async def test_a_lease_counts_from_before_the_answer(place):
    """A process may be stopped between what the server answers and what it reads: then its lease is over when it goes on."""
    async with RedisBroker(place) as broker, RedisBroker(place) as producer:
        await broker.prepare(["default"], 8.0)
        receiving = asyncio.ensure_future(broker.receive(["default"], 1, 5))
        await asyncio.sleep(0.2)
        await producer.publish([an_envelope()])
        time.sleep(0.5)

        (delivery,) = await receiving

        assert time.monotonic() - delivery.received_at >= 0.5
