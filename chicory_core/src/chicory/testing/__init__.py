"""What a test, or a plugin's test, imports; nothing in chicory imports it. The suites need the extra ``testing``.

A test of an app runs it in memory::

    from chicory.testing import in_memory

    async with in_memory(app) as run:
        await place_order.delay(17)
        await run.until_idle()

A plugin proves itself by inheriting the suites and giving a fixture::

    from chicory.testing import BrokerSuite

    class TestKafkaBroker(BrokerSuite):
        @pytest.fixture
        def make_broker(self, kafka_server, clock):
            return lambda: KafkaBroker(kafka_server.url, clock=clock)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory.testing.backends import BackendSuite
    from chicory.testing.brokers import BrokerSuite
    from chicory.testing.builders import a_delivery, a_record, a_settlement, an_envelope, receive_one
    from chicory.testing.clock import FakeClock, eventually
    from chicory.testing.crash import CrashCheck, CrashFinding, CrashReport
    from chicory.testing.faults.proxy import ProxyMode, TcpProxy
    from chicory.testing.faults.suite import FaultSuite
    from chicory.testing.joined import JoinedSuite
    from chicory.testing.layers import LayerSuite
    from chicory.testing.model import BrokerModel
    from chicory.testing.plugins import PluginSuite
    from chicory.testing.recorder import Failure
    from chicory.testing.run import AppRun, in_memory
    from chicory.testing.serializers import SerializerSuite

_HOME = {
    "backends": ("BackendSuite",),
    "brokers": ("BrokerSuite",),
    "builders": ("a_delivery", "a_record", "a_settlement", "an_envelope", "receive_one"),
    "clock": ("FakeClock", "eventually"),
    "crash": ("CrashCheck", "CrashReport", "CrashFinding"),
    "faults.proxy": ("ProxyMode", "TcpProxy"),
    "faults.suite": ("FaultSuite",),
    "joined": ("JoinedSuite",),
    "layers": ("LayerSuite",),
    "model": ("BrokerModel",),
    "plugins": ("PluginSuite",),
    "recorder": ("Failure",),
    "run": ("AppRun", "in_memory"),
    "serializers": ("SerializerSuite",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "AppRun",
    "BackendSuite",
    "BrokerModel",
    "BrokerSuite",
    "CrashCheck",
    "CrashFinding",
    "CrashReport",
    "Failure",
    "FakeClock",
    "FaultSuite",
    "JoinedSuite",
    "LayerSuite",
    "PluginSuite",
    "ProxyMode",
    "SerializerSuite",
    "TcpProxy",
    "a_delivery",
    "a_record",
    "a_settlement",
    "an_envelope",
    "eventually",
    "in_memory",
    "receive_one",
]


def __getattr__(name: str) -> object:
    # Looked up when first used: what runs an app in a test needs no pytest, and the suites do.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
