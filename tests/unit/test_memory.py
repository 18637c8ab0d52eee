"""The memory broker and backend are verified fakes: they pass the suites that every plugin passes."""

import pytest

from chicory.memory import MemoryBackend, MemoryBroker, MemoryStore
from chicory.testing import BackendSuite, BrokerSuite, JoinedSuite


class TestMemoryBroker(BrokerSuite):
    @pytest.fixture
    def make_broker(self, clock):
        store = MemoryStore(clock)
        return lambda: MemoryBroker(store=store)


class TestMemoryBackend(BackendSuite):
    @pytest.fixture
    def make_backend(self, clock):
        store = MemoryStore(clock)
        return lambda: MemoryBackend(store=store)


class TestMemoryJoined(JoinedSuite):
    @pytest.fixture
    def make_pair(self, clock):
        store = MemoryStore(clock)
        return lambda: (MemoryBroker(store=store), MemoryBackend(store=store))


class TestMemoryApart(JoinedSuite):
    """Broker and backend in two stores: ``store_then_settle``."""

    @pytest.fixture
    def make_pair(self, clock):
        here, there = MemoryStore(clock), MemoryStore(clock)
        return lambda: (MemoryBroker(store=here), MemoryBackend(store=there))
