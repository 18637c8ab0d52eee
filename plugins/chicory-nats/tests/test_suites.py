"""NATS passes the suites of the core, unchanged: on the server's clock, so that the waiting is real."""

import asyncio

import pytest
from msgspec.structs import replace

from chicory.errors import BackendConnectionError
from chicory.plugin import SYSTEM_CLOCK
from chicory.testing import BackendSuite, BrokerSuite, JoinedSuite, PluginSuite, a_record
from chicory_nats import NatsBackend, NatsBackendConfig, NatsBroker, NatsBrokerConfig


class OnServerTime:
    @pytest.fixture
    def clock(self):
        return SYSTEM_CLOCK

    @pytest.fixture
    def lease(self):
        return 0.5


class TestNatsBroker(OnServerTime, BrokerSuite):
    @pytest.fixture
    def make_broker(self, place, monkeypatch):
        monkeypatch.setattr("chicory_nats.broker.DEDUP_WINDOW", 0.5)
        monkeypatch.setattr(NatsBroker, "capabilities", replace(NatsBroker.capabilities, dedup_window=0.5))
        return lambda: NatsBroker(place)


class TestNatsBackend(OnServerTime, BackendSuite):
    @pytest.fixture
    def ttl(self):
        return 1.0

    @pytest.fixture
    def make_backend(self, place):
        return lambda: NatsBackend(place)

    async def test_closing_does_not_leave_anybody_waiting(self, make_backend):
        async with make_backend() as backend:
            waiting = asyncio.ensure_future(backend.wait("later", exists=False))
            await asyncio.sleep(0.05)

        with pytest.raises(BackendConnectionError, match="closed"):
            await waiting

    async def test_closing_ends_at_whatever_moment_it_comes(self, make_backend):
        for number in range(30):
            async with asyncio.timeout(20), make_backend() as backend:
                record = a_record()
                waiting = asyncio.ensure_future(backend.wait(record.id, exists=False))
                await asyncio.sleep(0.0005 * (number % 7))
                await backend.store([record])
                assert await waiting == record


class TestNatsJoined(OnServerTime, JoinedSuite):
    @pytest.fixture
    def make_pair(self, place):
        return lambda: (NatsBroker(place), NatsBackend(place))


class TestNatsPlugin(PluginSuite):
    name = "nats"
    client_libraries = ("nats",)
    settings = (NatsBrokerConfig, NatsBackendConfig)


class TestNatsApart(OnServerTime, JoinedSuite):
    """Two servers: ``store_then_settle``. (The second is the same one, by another name.)"""

    @pytest.fixture
    def make_pair(self, place):
        there = replace(place, servers=tuple(url.replace("127.0.0.1", "localhost") for url in place.servers))
        return lambda: (NatsBroker(place), NatsBackend(there))
