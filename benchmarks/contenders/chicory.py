"""chicory on SQLite, as `pip install chicory-core[fast] chicory-sqlite` gives it: FULL sync, every default.

The worker is the real command (which takes uvloop when it is installed); the publishing side is a plain ``asyncio.run``.
Concurrency is the default, min(32, cpus + 4), in all rows but the one that says otherwise.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from benchmarks import core, startup
from benchmarks.harness import FOLDER, Numbers, Workload, draining, idling, publishing, script, tripping
from benchmarks.ledger import Ledger
from chicory import Chicory

_LOT = 100
_FILL = 500

app = Chicory(broker=f"sqlite:///{FOLDER.resolve()}/queue.db")
ledger = Ledger(FOLDER)


@app.task
async def kept(number: int) -> int:
    ledger.ran(number)
    return number


@app.task(ignore_result=True)
async def ignored(number: int) -> int:
    ledger.ran(number)
    return number


def _worker(*options: str) -> list[str]:
    return [script("chicory"), "worker", f"{__name__}:app", "--log-level", "WARNING", *options]


class _Store:
    """The file, read as SQLite: the worker's own counts of its queue, and the records of tasks that succeeded."""

    def fill(self, tasks: int, *, results: bool) -> None:
        task = kept if results else ignored

        async def publish() -> None:
            async with app:
                for lot in _lots(tasks, _FILL):
                    await task.delay_many([(number,) for number in lot])

        asyncio.run(publish())

    def unsettled(self) -> int:
        return self._number("SELECT ready + delayed + running FROM queue WHERE name = 'default'")

    def results(self) -> int:
        return self._number("SELECT count(*) FROM task WHERE state = 'SUCCESS' AND result IS NOT NULL")

    def _number(self, query: str) -> int:
        connection = sqlite3.connect(FOLDER / "queue.db", isolation_level=None)
        try:
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()


def _lots(n: int, size: int) -> Iterable[range]:
    return (range(start, min(start + size, n)) for start in range(0, n, size))


# --- publishing --------------------------------------------------------------------------------


async def _one_by_one(n: int) -> None:
    for number in range(n):
        await kept.delay(number)


async def _gathered(n: int) -> None:
    for lot in _lots(n, _LOT):
        await asyncio.gather(*(kept.delay(number) for number in lot))


async def _many(n: int) -> None:
    for lot in _lots(n, _LOT):
        await kept.delay_many([(number,) for number in lot])


def _publish(how: Callable[[int], Awaitable[None]], n: int) -> float:
    async def publish() -> float:
        async with app:
            await kept.delay(0)
            started = time.perf_counter()
            await how(n)
            return time.perf_counter() - started

    return asyncio.run(publish())


# --- round trip --------------------------------------------------------------------------------


def _round_trips() -> Numbers:
    with asyncio.Runner() as runner:

        async def trip(number: int) -> float:
            started = time.perf_counter()
            await (await kept.delay(number)).get(timeout=10)
            return time.perf_counter() - started

        numbers = tripping(_Store(), _worker(), lambda number: runner.run(trip(number)))
        runner.run(app.disconnect())
    return {f"trip_{name}": value for name, value in numbers.items()}


_drain = partial(draining, _Store())

WORKLOADS: dict[str, Workload] = {
    "publish_one": lambda n: {"publish_one": publishing(partial(_publish, _one_by_one), n // 10)},
    "publish_gather": lambda n: {"publish_gather": publishing(partial(_publish, _gathered), n)},
    "publish_many": lambda n: {"publish_many": publishing(partial(_publish, _many), n)},
    "run_results": lambda n: {"run_results": _drain(_worker(), n)},
    "run_results_wide": lambda n: {"run_results_wide": _drain(_worker("--concurrency", "100"), n)},
    "run_ignored": lambda n: {"run_ignored": _drain(_worker(), n, results=False)},
    "run_two": lambda n: {"run_two": _drain(_worker("--workers", "2"), n, processes=2)},
    "round_trip": lambda _: _round_trips(),
    "idle": lambda _: idling(_Store(), _worker()),
    "core_asyncio": lambda n: {"core_asyncio": core.rate(2 * n, uvloop=False)},
    "core_uvloop": lambda n: {"core_uvloop": core.rate(2 * n, uvloop=True)},
    "startup": lambda _: startup.times(script("chicory")),
}
