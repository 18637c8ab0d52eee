"""NATS passes the suites of the core, unchanged: on the server's clock, so that the waiting is real."""

import pytest
from msgspec.structs import replace

from chicory.plugin import SYSTEM_CLOCK
from chicory.testing import BrokerSuite
from chicory_nats import NatsBroker


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
