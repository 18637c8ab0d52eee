"""What a test, or a plugin's test, imports. Needs the extra ``testing``; nothing in chicory imports it.

A plugin proves itself by inheriting the suites and giving a fixture::

    from chicory.testing import BrokerSuite

    class TestKafkaBroker(BrokerSuite):
        @pytest.fixture
        def make_broker(self, kafka_server, clock):
            return lambda: KafkaBroker(kafka_server.url, clock=clock)
"""

from __future__ import annotations

from chicory.testing.backends import BackendSuite
from chicory.testing.brokers import BrokerSuite
from chicory.testing.builders import a_delivery, a_record, a_settlement, an_envelope, receive_one
from chicory.testing.clock import FakeClock, eventually
from chicory.testing.joined import JoinedSuite
from chicory.testing.layers import LayerSuite
from chicory.testing.plugins import PluginSuite
from chicory.testing.serializers import SerializerSuite

__all__ = [
    "BackendSuite",
    "BrokerSuite",
    "FakeClock",
    "JoinedSuite",
    "LayerSuite",
    "PluginSuite",
    "SerializerSuite",
    "a_delivery",
    "a_record",
    "a_settlement",
    "an_envelope",
    "eventually",
    "receive_one",
]
