"""chicory on SQLite, as ``pip install chicory-core[fast] chicory-sqlite`` gives it: FULL sync."""

from __future__ import annotations

import sqlite3

from benchmarks import core, startup
from benchmarks.adapter import About, script
from benchmarks.contenders.of_chicory import ChicoryAdapter
from benchmarks.probes import Probe
from benchmarks.tasks import FOLDER
from chicory import Chicory

ABOUT = About(title="chicory", broker="sqlite", guarantee="at least once, results with the message", role="ours", scale=1)
app = Chicory(broker=f"sqlite:///{FOLDER}/queue.db")


class _Adapter(ChicoryAdapter):
    about = ABOUT

    def unsettled(self, probe: Probe) -> int:
        return _number("SELECT ready + delayed + running FROM queue WHERE name = 'default'")

    def results(self, probe: Probe) -> int | None:
        return _number("SELECT count(*) FROM task WHERE state = 'SUCCESS' AND result IS NOT NULL")


def _number(query: str) -> int:
    connection = sqlite3.connect(FOLDER / "queue.db", isolation_level=None)
    try:
        return int(connection.execute(query).fetchone()[0])
    finally:
        connection.close()


ADAPTER = _Adapter(app, __name__)
WORKLOADS = {
    "core_asyncio": lambda n: {"core_asyncio": core.rate(2 * n, uvloop=False)},
    "core_uvloop": lambda n: {"core_uvloop": core.rate(2 * n, uvloop=True)},
    "startup": lambda _: startup.times(script("chicory")),
}
