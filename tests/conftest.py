"""What the core's tests share: an app in memory under a clock that stands still."""

import os
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, settings

from chicory import Chicory, Worker, WorkerConfig
from chicory.memory import MemoryBackend, MemoryBroker, MemoryStore
from chicory.testing import FakeClock

# How fast the machine is, is not what is tested.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """What the shell of whoever runs the tests has set is not what is tested."""
    for name in [name for name in os.environ if name.startswith("CHICORY_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
def make_app(clock, store):
    """Makes apps on one store: the producer's, an older worker's, a newer one's."""

    def make(**arguments):
        given = {"broker": MemoryBroker(store=store), "backend": MemoryBackend(store=store), "clock": clock, **arguments}
        return Chicory(**given)

    return make


@pytest.fixture
def app(make_app):
    return make_app()


@asynccontextmanager
async def working(app, **settings):
    """A worker of *app*, in this loop; the app's own client is closed at the end."""
    async with app, Worker(app, WorkerConfig(**{"concurrency": 4, **settings})) as worker:
        yield worker


@pytest.fixture
def work():
    return working
