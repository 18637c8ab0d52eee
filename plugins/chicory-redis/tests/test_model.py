"""Random histories on a real server, against plain dictionaries."""

from itertools import count

import pytest

from chicory.plugin import SYSTEM_CLOCK
from chicory.testing import BrokerModel
from chicory_redis import RedisBroker

_PLACES = count()


class RedisModel(BrokerModel):
    """In real time, so shorter and fewer histories than where a clock can jump."""

    clock = SYSTEM_CLOCK
    lease = 0.3
    promptly = False
    server = None

    def new_place(self):
        place = self.server.place(prefix=f"m{next(_PLACES)}")
        return lambda: RedisBroker(place)


@pytest.mark.timeout(300)
def test_any_history_keeps_the_contract(redis_server):
    RedisModel.server = redis_server
    RedisModel.check(max_examples=5, stateful_step_count=20)
