"""huey on SQLite with ``fsync=True``, the same sync of each commit as chicory's FULL.

Of 1, 4 and 8 threads one was the fastest with no-op tasks, by a third (2,400, 2,000 and 1,900 tasks/s; without results
4,500, 3,200 and 3,000): threads wait for each other at the one connection. It means that tasks never overlap; the row of
many waiting tasks has as many threads as tasks. As two processes, ``-k process -w 2`` was faster than two consumers.
"""

from __future__ import annotations

import sqlite3

from huey import SqliteHuey

from benchmarks.adapter import About
from benchmarks.contenders.of_huey import HueyAdapter
from benchmarks.probes import Probe
from benchmarks.tasks import FOLDER

ABOUT = About(title="huey", broker="sqlite", guarantee="at most once", at_least_once=False)
_FILE = str(FOLDER / "queue.db")
_THREADS = 1

huey = SqliteHuey("benchmark", filename=_FILE, fsync=True)


class _Adapter(HueyAdapter):
    about = ABOUT

    def unsettled(self, probe: Probe) -> int:
        return _number("SELECT count(*) FROM task")

    def results(self, probe: Probe) -> int | None:
        return _number("SELECT count(*) FROM kv")


def _number(query: str) -> int:
    connection = sqlite3.connect(_FILE, isolation_level=None)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


ADAPTER = _Adapter(huey, __name__, _THREADS)
