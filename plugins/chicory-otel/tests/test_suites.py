"""What every plugin package, and every layer, keeps to."""

import pytest

from chicory import Chicory
from chicory.testing import LayerSuite, PluginSuite
from chicory_otel import OtelConfig


class TestOtelPlugin(PluginSuite):
    name = "otel"
    client_libraries = ("opentelemetry.sdk", "opentelemetry.exporter", "google.protobuf")
    settings = (OtelConfig,)


class TestOtelLayer(LayerSuite):
    @pytest.fixture
    def middleware(self):
        app = Chicory(broker="memory")
        (layer,) = dict(app.plugins.collect("chicory_execute_middleware", app=app))["otel"]
        return layer
