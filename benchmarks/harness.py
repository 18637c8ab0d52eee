"""One measurement: runs in a contender's own interpreter and prints one line of JSON.

``python -m benchmarks.harness CONTENDER WORKLOAD N``, with ``BENCHMARK_FOLDER`` naming an empty directory. How throughput
of workers is measured, the same for all: the queue is filled; the worker's own command is started; the clock starts when
every worker process has begun its first task, and stops when every task ran (`Ledger`) and the contender's store says that
nothing is queued or running and, where they are kept, that all results are there. Looks are 1 ms apart.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from benchmarks.ledger import PAUSE, Ledger

Numbers = Mapping[str, float]
Workload = Callable[[int], Numbers]
"""From the N of the run to named numbers."""

FOLDER = Path(os.environ.get("BENCHMARK_FOLDER", "."))
_PATIENCE = 180.0
_END_WAIT = 20.0
_IDLE_BEFORE, _IDLE = 5.0, 10.0
_TRIPS, _FIRST_TRIPS = 300, 10


class Store(Protocol):
    """What the harness asks a contender about the tasks it holds."""

    def fill(self, tasks: int, *, results: bool) -> None:
        """Queue tasks 0 to *tasks* - 1, of the kind that keeps its result or of the other."""
        ...

    def unsettled(self) -> int:
        """Tasks that are queued or running, as the store knows them."""
        ...

    def results(self) -> int:
        """Results that are stored."""
        ...


# --- workloads that contenders are made of -----------------------------------------------------


def publishing(publish: Callable[[int], float], n: int) -> float:
    """Messages a second of *publish*, which returns its seconds for *n* messages."""
    return n / publish(n)


def draining(store: Store, command: Sequence[str], n: int, *, processes: int = 1, results: bool = True) -> float:
    """Tasks a second of the worker that *command* starts, which has that many processes."""
    ledger = Ledger(FOLDER)
    ledger.create(n, processes=processes)
    store.fill(n, results=results)
    with _worker(command) as worker:
        _until(ledger.all_arrived, worker)
        started = time.perf_counter()
        _until(lambda: not ledger.missing(), worker)
        _until(lambda: not store.unsettled() and (not results or store.results() >= n), worker)
        seconds = time.perf_counter() - started
    _require(ledger.extra_runs() == 0, f"{ledger.extra_runs()} tasks ran more than once")
    _require(store.unsettled() == 0, f"{store.unsettled()} tasks are left")
    return n / seconds


def tripping(store: Store, command: Sequence[str], trip: Callable[[int], float]) -> Numbers:
    """Milliseconds from sending a task to having its result, with pauses in which client and worker fall idle.

    *trip* returns its seconds.
    """
    ledger = Ledger(FOLDER)
    ledger.create(1 + _FIRST_TRIPS + _TRIPS, processes=1)
    store.fill(1, results=True)
    pauses = random.Random(7)
    times = []
    with _worker(command) as worker:
        _until(lambda: not store.unsettled(), worker)
        for number in range(1, 1 + _FIRST_TRIPS + _TRIPS):
            time.sleep(pauses.uniform(0.005, 0.025))
            times.append(trip(number) * 1000)
    _require(ledger.missing() == 0, f"{ledger.missing()} tasks did not run")
    cuts = statistics.quantiles(times[_FIRST_TRIPS:], n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def idling(store: Store, command: Sequence[str]) -> Numbers:
    """Seconds from the start of the command to the first task done, then what the process takes while it has no work."""
    ledger = Ledger(FOLDER)
    ledger.create(1, processes=1)
    store.fill(1, results=True)
    started = time.perf_counter()
    with _worker(command) as worker:
        _until(lambda: not ledger.missing(), worker)
        first_task = time.perf_counter() - started
        time.sleep(_IDLE_BEFORE)
        resident, before, since = _resident_mb(worker.pid), _cpu_seconds(worker.pid), time.perf_counter()
        time.sleep(_IDLE)
        cpu = (_cpu_seconds(worker.pid) - before) / (time.perf_counter() - since)
    return {"first_task": first_task, "idle_rss": resident, "idle_cpu": cpu * 100}


# --- steps -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _worker(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The worker's own command as a child process; SIGTERM ends it, by its pid."""
    with (FOLDER / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=FOLDER, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_END_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(is_true: Callable[[], bool], worker: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_true():
        if worker.poll() is not None or time.monotonic() > deadline:
            log = (FOLDER / "worker.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the worker ended, or took over {_PATIENCE} s:\n{log}")
        time.sleep(PAUSE)


def _require(is_true: bool, otherwise: str) -> None:  # noqa: FBT001 - reads like an assert, which -O would drop
    if not is_true:
        raise RuntimeError(otherwise)


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def _cpu_seconds(pid: int) -> float:
    """utime and stime of the process, in seconds (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def script(name: str) -> str:
    """A console script of this environment."""
    return str(Path(sys.executable).with_name(name))


def main() -> None:
    contender, workload, n = sys.argv[1:]
    workloads: Mapping[str, Workload] = importlib.import_module(f"benchmarks.contenders.{contender}").WORKLOADS
    if workload == "list":
        print(json.dumps(list(workloads)))
    else:
        print(json.dumps(dict(workloads[workload](int(n)))))


if __name__ == "__main__":
    main()
