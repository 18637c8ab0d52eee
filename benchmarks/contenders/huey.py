"""huey on SQLite with ``fsync=True``, the same sync of each commit as chicory's FULL. It promises at most once.

Chosen to be fast: ``-q`` (no log line per task), ``-n`` (no periodic tasks). Of 1, 4 and 8 threads and of one process, one
thread was the fastest with no-op tasks, by a third (2,400, 2,000, 1,900 and 2,500 tasks/s; without results 4,500, 3,200 and
3,000): threads wait for each other at the one connection. It means that tasks never overlap; the row with many at once has
8 threads. As two processes, ``-k process -w 2`` was faster than two consumers with a thread each (2,400 and 2,200).
The tight round trip polls each millisecond on both sides; the other one is huey as it comes.
The queue is filled without sync: that part is not measured.
"""

from __future__ import annotations

import sqlite3
import time

from huey import SqliteHuey

from benchmarks.harness import FOLDER, Numbers, Workload, draining, idling, publishing, script, tripping
from benchmarks.ledger import Ledger

_FILE = str(FOLDER.resolve() / "queue.db")
_TIGHT = ("--delay", "0.001", "--max-delay", "0.001", "--backoff", "1")

huey = SqliteHuey("benchmark", filename=_FILE, fsync=True)
ledger = Ledger(FOLDER)


@huey.task()
def kept(number: int) -> int:
    ledger.ran(number)
    return number


@huey.task()
def ignored(number: int) -> None:
    """Returns None, which huey does not store."""
    ledger.ran(number)


def _worker(*options: str, kind: str = "thread", workers: int = 1) -> list[str]:
    fixed = ["-q", "-n", "-g", "TERM", "-k", kind, "-w", str(workers)]
    return [script("huey_consumer"), f"{__name__}.huey", *fixed, *options]


class _Store:
    """huey's own tables. A message leaves its table before its task runs; the ledger tells that it ran."""

    def fill(self, tasks: int, *, results: bool) -> None:
        task = kept if results else ignored
        huey.storage.conn.execute("PRAGMA synchronous = OFF")
        for number in range(tasks):
            task(number)
        huey.storage.conn.execute("PRAGMA synchronous = FULL")

    def unsettled(self) -> int:
        return self._number("SELECT count(*) FROM task")

    def results(self) -> int:
        return self._number("SELECT count(*) FROM kv")

    def _number(self, query: str) -> int:
        connection = sqlite3.connect(_FILE, isolation_level=None)
        try:
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()


_STORE = _Store()


def _one_by_one(n: int) -> float:
    kept(0)
    started = time.perf_counter()
    for number in range(n):
        kept(number)
    return time.perf_counter() - started


def _round_trips(prefix: str, options: tuple[str, ...], longest_look: float) -> Numbers:
    def trip(number: int) -> float:
        started = time.perf_counter()
        kept(number).get(blocking=True, timeout=10, max_delay=longest_look)
        return time.perf_counter() - started

    numbers = tripping(_STORE, _worker(*options), trip)
    return {f"{prefix}_{name}": value for name, value in numbers.items()}


WORKLOADS: dict[str, Workload] = {
    "publish_one": lambda n: {"publish_one": publishing(_one_by_one, n // 10)},
    "run_results": lambda n: {"run_results": draining(_STORE, _worker(), n)},
    "run_results_wide": lambda n: {"run_results_wide": draining(_STORE, _worker(workers=8), n)},
    "run_ignored": lambda n: {"run_ignored": draining(_STORE, _worker(), n, results=False)},
    "run_two": lambda n: {"run_two": draining(_STORE, _worker(kind="process", workers=2), n, processes=2)},
    "round_trip": lambda _: _round_trips("trip", _TIGHT, 0.001),
    "round_trip_default": lambda _: _round_trips("trip_default", (), 1.0),
    "idle": lambda _: idling(_STORE, _worker()),
}
