"""Random histories on a real server, against plain dictionaries."""

import os
from itertools import count

import pytest

from chicory.plugin import SYSTEM_CLOCK
from chicory.testing import BrokerModel
from chicory_nats import NatsBroker
from chicory_nats.names import Names

_PLACES = count()
_ALL = os.environ.get("CHICORY_TEST_FAULTS") == "all"


class NatsModel(BrokerModel):
    """In real time, so shorter and fewer histories than where a clock can jump."""

    clock = SYSTEM_CLOCK
    lease = 0.6
    promptly = False
    grain = 0.5
    server = None

    def new_place(self):
        place = self.server.place(names=Names(f"m{next(_PLACES)}"))
        return lambda: NatsBroker(place)


@pytest.mark.timeout(300)
def test_any_history_keeps_the_contract(nats_server):
    NatsModel.server = nats_server
    NatsModel.check(max_examples=20 if _ALL else 5, stateful_step_count=20, derandomize=not _ALL)
