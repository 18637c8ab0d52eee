"""The fault suite on a real server. ``CHICORY_TEST_FAULTS=all`` runs the long ones too, as the full matrix does."""

import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from chicory.testing import FaultSuite
from chicory.testing.faults.workload import SABOTAGE_VARIABLE

LONG = (
    "test_a_container_that_is_stopped",
    "test_a_task_that_kills_its_worker_is_rejected",
    "test_twenty_kills",
    "test_with",
)


class TestNatsFaults(FaultSuite):
    @pytest.fixture(autouse=True)
    def short_enough(self, request):
        if request.node.name.startswith(LONG) and os.environ.get("CHICORY_TEST_FAULTS") != "all":
            pytest.skip("takes long, and is of a kind that others are of: CHICORY_TEST_FAULTS=all runs it")

    @pytest.fixture
    def settings(self, nats_server, place):
        return {"CHICORY_BROKER_URL": f"{nats_server.url}?namespace={place.names.space}"}

    @pytest.fixture
    def fence_off(self):
        sabotage = "chicory.testing.faults.sabotage:worker_fence_off,nats_fence_off:fence_off"
        return {SABOTAGE_VARIABLE: sabotage, "PYTHONPATH": str(Path(__file__).parent)}

    @pytest.fixture
    def two_stores(self, make_server):
        messages, results = make_server(), make_server()
        settings = {"CHICORY_BROKER_URL": messages.url, "CHICORY_BACKEND_URL": results.url}
        return settings, lambda: stopped(messages), lambda: stopped(results)


@contextmanager
def stopped(server):
    """The server stands still: connections stay open, and nothing is answered."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()
