"""The suites that every plugin inherits."""

import pytest

from chicory import Chicory, ChicoryConfig, WorkerConfig
from chicory.testing import LayerSuite, PluginSuite
from chicory_dlq import DlqConfig
from chicory_dlq.plugin import chicory_execute_middleware


class TestDlqPlugin(PluginSuite):
    name = "dlq"
    settings = (DlqConfig,)


class TestDlqLayer(LayerSuite):
    @pytest.fixture
    def middleware(self):
        app = Chicory(broker="memory://", config=ChicoryConfig(worker=WorkerConfig(use_dead_letter_queue=True)))
        (middleware,) = chicory_execute_middleware(app)
        return middleware
