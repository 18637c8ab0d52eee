"""What is measured, the same for every contender.

How throughput of workers is measured: the queue is filled; the worker's own commands are started; the clock starts when
every worker process has begun its first task, and stops when every task ran (`Ledger`) and the contender's store says that
nothing is queued or running and, where they are kept, that all results are there. Looks are 1 ms apart.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from benchmarks.adapter import LOT, Adapter, AsyncAdapter, Row, Setup, fill, numbers
from benchmarks.ledger import PAUSE, Ledger
from benchmarks.probes import Probe
from benchmarks.steps import Workers, cpu_seconds, private_mb, require, resident_mb, tree, until, workers
from benchmarks.tasks import FOLDER

Numbers = dict[str, float]
_SETTLE_LOOKS = 0.002
_SLOW = 0.1
"""Contenders with no more than this share of N run one task at a time."""
_IDLE_BEFORE, _IDLE = 1.0, 3.0
_TRIPS, _FIRST_TRIPS, _TRIPS_TIME = 300, 10, 4.0
_IO_TASKS, _IO_CONCURRENCY = 2_000, 100
_CPU_TASKS, _PAYLOADS, _PAYLOAD = 1_000, 500, "x" * 100_000
_AFTER, _DEFAULT_N, _TWO = 20_000, 10_000, 2_000
_LOAD_LOT, _LOAD_SECONDS = 0.02, 240.0
_SHARED_LOAD, _MOST_OF_RATE = 300, 0.7
"""Tasks a second that nearly all contenders can run, and the part of its own rate up to which one is asked to."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One measurement's contender and server."""

    adapter: Adapter
    probe: Probe
    n: int

    @property
    def tasks(self) -> int:
        """N of this contender."""
        return max(20, int(self.n * self.adapter.about.scale))

    def share(self, of: int) -> int:
        """*of* tasks of a workload with a size of its own, in a run with the usual N; smaller in a smaller one."""
        return max(20, int(of * min(1.0, self.n / _DEFAULT_N)))


# --- publishing --------------------------------------------------------------------------------


def publish(bench: Bench) -> Numbers:
    adapter, n = bench.adapter, bench.tasks
    with adapter.producer(Setup()) as producer:
        producer.one_by_one("kept", numbers(10))
        found = {"publish_one": (n // 5) / producer.one_by_one("kept", numbers(n // 5))}
        if adapter.gathers:
            producer.gathered("kept", numbers(LOT))  # opens connections, of those that open as many as are wanted
            found["publish_gather"] = n / producer.gathered("kept", numbers(n))
        if adapter.bulk:
            found["publish_many"] = n / producer.many("kept", numbers(n))
    return found


# --- running -----------------------------------------------------------------------------------


def drain(
    bench: Bench, kind: str, rows: list[Row], setup: Setup, after: Callable[[Workers], None] = lambda _: None
) -> tuple[float, Numbers]:
    """Seconds for *rows*, and what the server counted meanwhile."""
    adapter, probe, n = bench.adapter, bench.probe, len(rows)
    ledger = Ledger(FOLDER)
    ledger.create(n, processes=setup.processes)
    with adapter.producer(setup) as producer:
        fill(adapter, producer, kind, rows)
    before = probe.counts()
    with workers(adapter.commands(setup), setup) as running:
        until(ledger.all_arrived, running)
        started = time.perf_counter()
        # A look copies the marks: at a million tasks, each millisecond would be a whole core.
        until(lambda: not ledger.missing(), running, pause=PAUSE * max(1.0, n / 20_000))
        until(lambda: _is_settled(bench, 0 if kind == "ignored" else n), running, pause=_SETTLE_LOOKS)
        seconds = time.perf_counter() - started
        counted = {name: value - before.get(name, 0) for name, value in probe.counts().items()}
        after(running)
    # A peer may run a few twice within its promise: SAQ's first sweep takes jobs that were just fetched for lost ones.
    few = 0 if adapter.about.role == "ours" else n // 20
    require(ledger.extra_runs() <= few, f"{ledger.extra_runs()} tasks ran more than once")
    require(ledger.missing() == 0, f"{ledger.missing()} tasks did not run")
    return seconds, counted


def _is_settled(bench: Bench, results: int) -> bool:
    if bench.adapter.unsettled(bench.probe):
        return False
    found = bench.adapter.results(bench.probe) if results else None
    return found is None or found >= results


def _rate(bench: Bench, name: str, kind: str = "kept", setup: Setup = Setup(), n: int = 0) -> Numbers:  # noqa: B008 - frozen
    n = n or bench.tasks
    return {name: n / drain(bench, kind, numbers(n), setup)[0]}


def _run_results(bench: Bench) -> Numbers:
    """Where there are only sync tasks, this is the row of sync tasks too."""
    found = _rate(bench, "run_results")
    return found if isinstance(bench.adapter, AsyncAdapter) else {**found, "threads": found["run_results"]}


def run_ignored(bench: Bench) -> Numbers:
    """Without results: the rate, what the server had to do, and what is left in it."""
    n = bench.tasks
    seconds, counted = drain(bench, "ignored", numbers(n), Setup(results=False))
    found = {"run_ignored": n / seconds}
    found |= {name: value / n for name, value in counted.items()}
    if held := bench.probe.held():
        found |= {"left_items": held["items"] / n * 1000, "left_expiring": held["expiring"] / n * 1000}
    return found


def io_bound(bench: Bench) -> Numbers:
    n = bench.share(_IO_TASKS if bench.adapter.about.scale > _SLOW else _IO_TASKS // 20)
    seconds, _ = drain(bench, "slept", numbers(n), Setup(concurrency=_IO_CONCURRENCY))
    return {"io_bound": seconds * _IO_TASKS / n}


def payload(bench: Bench) -> Numbers:
    """100 KB each."""
    rows = [(number, _PAYLOAD) for number in range(bench.share(_PAYLOADS))]
    seconds, _ = drain(bench, "carried", rows, Setup())
    return {"payload_run": len(rows) / seconds}


def grow(bench: Bench, sizes: Mapping[str, int]) -> Numbers:
    """Runs of several sizes in one store, each after the one before: cost a task must not depend on how many wait."""
    found: Numbers = {}
    for name, size in sizes.items():
        n = bench.share(size)
        resident: list[float] = []
        seconds, _ = drain(bench, "ignored", numbers(n), Setup(results=False), partial(_note_memory, resident))
        found |= {f"grow_{name}": n / seconds, f"grow_rss_{name}": resident[0]}
    return found


def _note_memory(resident: list[float], running: Workers) -> None:
    resident.append(resident_mb(tree(running)))


# --- round trips -------------------------------------------------------------------------------


def round_trip(bench: Bench, prefix: str, setup: Setup) -> Numbers:
    """Milliseconds from sending a task to having its result, with pauses in which client and worker fall idle."""
    ledger = Ledger(FOLDER)
    ledger.create(1 + _FIRST_TRIPS + _TRIPS, processes=1)
    with bench.adapter.producer(setup) as producer, workers(bench.adapter.commands(setup), setup) as running:
        times = _trips(bench, producer.trip, ledger, running)
    return _quantiles(prefix, times)


def _trips(bench: Bench, trip: Callable[[int], float], ledger: Ledger, running: Workers) -> list[float]:
    pauses = random.Random(7)
    trip(0)
    until(ledger.all_arrived, running)
    times: list[float] = []
    for number in range(1, 1 + _FIRST_TRIPS):
        trip(number)
    ends = time.monotonic() + _TRIPS_TIME * min(1.0, bench.n / _DEFAULT_N)
    while len(times) < _TRIPS and (len(times) < 5 or time.monotonic() < ends):
        time.sleep(pauses.uniform(0.005, 0.025))
        times.append(trip(1 + _FIRST_TRIPS + len(times)) * 1000)
    return times


def _quantiles(prefix: str, times: list[float]) -> Numbers:
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {f"{prefix}_p50": cuts[49], f"{prefix}_p95": cuts[94], f"{prefix}_p99": cuts[98]}


def round_trip_loaded(bench: Bench) -> Numbers:
    """Round trips beside a load: half of what this contender's worker can run, and one that is the same for all."""
    setup, n = Setup(), bench.share(2_000) if bench.adapter.about.scale < 1 else bench.share(5_000)
    n = n if bench.adapter.about.scale > _SLOW else bench.share(200)
    rate = n / drain(bench, "ignored", numbers(n), setup)[0]
    found = _quantiles("loaded", _trips_beside(bench, setup, int(rate / 2)))
    if rate < _SHARED_LOAD / _MOST_OF_RATE:
        return found
    return found | _quantiles("shared", _trips_beside(bench, setup, _SHARED_LOAD))


def _trips_beside(bench: Bench, setup: Setup, rate: int) -> list[float]:
    """Milliseconds of round trips while another producer sends *rate* tasks a second."""
    ledger = Ledger(FOLDER)
    ledger.create(1_000_000, processes=1)
    with bench.adapter.producer(setup) as producer, workers(bench.adapter.commands(setup), setup) as running:
        producer.trip(0)
        command = [sys.executable, "-m", "benchmarks.harness", os.environ["BENCHMARK_CONTENDER"], "load", str(rate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **setup.environment()}) as load:
            try:
                require((load.stdout.readline() if load.stdout else b"") == b"loading\n", "the load did not start")
                time.sleep(1)
                times = _trips(bench, producer.trip, ledger, running)
                require(load.poll() is None, "the load ended before the trips")
            finally:
                load.terminate()
    return times


def load(adapter: Adapter, rate: int) -> None:
    """Send that many tasks a second, evenly, until it is ended; with numbers far above those of the trips."""
    setup, number, lot = Setup.from_environment(), 10_000, max(1, int(rate * _LOAD_LOT))
    with adapter.producer(setup) as producer:
        print("loading", flush=True)
        started, sent = time.perf_counter(), 0
        while time.perf_counter() < started + _LOAD_SECONDS:
            fill(adapter, producer, "ignored", numbers(lot, number + sent % 900_000))
            sent += lot
            time.sleep(max(0.0, started + sent / rate - time.perf_counter()))


# --- start and memory --------------------------------------------------------------------------


def idle(bench: Bench) -> Numbers:
    """Seconds from the start of the command to the first task done, then what the worker takes while it has no work."""
    setup, ledger = Setup(concurrency=-1), Ledger(FOLDER)
    ledger.create(1, processes=1)
    with bench.adapter.producer(setup) as producer:
        producer.one_by_one("kept", numbers(1))
    started = time.perf_counter()
    with workers(bench.adapter.commands(setup), setup) as running:
        until(lambda: not ledger.missing(), running)
        first_task = time.perf_counter() - started
        time.sleep(_IDLE_BEFORE)
        pids = tree(running)
        resident, before, since, counts = resident_mb(pids), cpu_seconds(pids), time.perf_counter(), bench.probe.counts()
        time.sleep(_IDLE)
        passed = time.perf_counter() - since
        found = {"first_task": first_task, "idle_rss": resident, "idle_private": private_mb(pids)}
        found["idle_cpu"] = (cpu_seconds(pids) - before) / passed * 100
        if counts:
            found["idle_commands"] = (bench.probe.counts()["commands"] - counts["commands"]) / passed
    return found


def memory(bench: Bench) -> Numbers:
    """Resident memory of a worker after 20,000 tasks with results; slow contenders get fewer."""
    scale = bench.adapter.about.scale
    resident: list[float] = []
    n = bench.share(_AFTER if scale >= 0.3 else _AFTER // 10)
    drain(bench, "kept", numbers(n), Setup(concurrency=-1), partial(_note_memory, resident))
    return {"rss_after": resident[0]}


# --- all of them -------------------------------------------------------------------------------

_SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
Workload = Callable[[Bench], Numbers]


def workloads(adapter: Adapter) -> dict[str, Workload]:
    """Those that *adapter* takes part in, in the order in which they are measured."""
    ours = adapter.about.role == "ours"
    scale = adapter.about.scale
    sizes = _SIZES if ours else {name: size for name, size in _SIZES.items() if size <= 10_000}
    found: dict[str, Workload] = {
        "publish": publish,
        "run_results": _run_results,
        "run_ignored": run_ignored,
        "run_two": _rate_two,
        "io_bound": io_bound,
        "round_trip": partial(round_trip, prefix="trip", setup=Setup(concurrency=-1)),
        "idle": idle,
        "round_trip_loaded": round_trip_loaded,
        "cpu_bound": _rate_cpu,
        "payload": payload,
        "memory": memory,
    }
    if isinstance(adapter, AsyncAdapter) and adapter.threads_apart:
        found["threads"] = lambda bench: _rate(bench, "threads", "threaded")
    if ours:
        found["run_default"] = lambda bench: _rate(bench, "run_default", setup=Setup(concurrency=-1))
        found["backlog_1m"] = lambda bench: grow(bench, {"1m": 1_000_000})
    if adapter.polls:
        found["round_trip_default"] = partial(round_trip, prefix="trip_default", setup=Setup(concurrency=-1, tight=False))
    if scale > _SLOW:
        found["backlog"] = lambda bench: grow(bench, sizes)
    return found


def _rate_two(bench: Bench) -> Numbers:
    """Not few in a small run either: one process could take all before the other has started."""
    n = max(bench.tasks, int(_TWO * bench.adapter.about.scale))
    return _rate(bench, "run_two", setup=Setup(processes=2), n=n)


def _rate_cpu(bench: Bench) -> Numbers:
    """Of several, for the same reason."""
    one_by_one = bench.adapter.about.scale <= _SLOW
    n = max(30, bench.share(_CPU_TASKS) // 2) if one_by_one else max(300, bench.share(_CPU_TASKS))
    return _rate(bench, "cpu_bound", "computed", Setup(processes=2, concurrency=-1), n)
