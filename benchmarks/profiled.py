"""The program that is profiled: publishes or runs tasks in one process, first alone, then when it is told to.

``python -m benchmarks.profiled {publish,run} BROKER CONCURRENCY N`` prints what a task costs as JSON, ``ready`` when it could
begin again, waits for a line, begins, prints ``done`` and ``ready``, and waits for another line.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time

from benchmarks.adapter import LOT, loop_factory
from benchmarks.tasks import FOLDER, SERVER
from chicory import Chicory, Worker, WorkerConfig

_BROKERS = {"memory": "memory", "sqlite": f"sqlite:///{FOLDER}/queue.db"}
Cost = dict[str, float]


class Program:
    """*n* tasks at a time."""

    def __init__(self, broker: str, concurrency: int, n: int) -> None:
        self._n, self._concurrency = n, concurrency
        self._app = Chicory(broker=_BROKERS.get(broker, SERVER))
        self._ran, self._all_ran = 0, asyncio.Event()

        @self._app.task(name="kept")
        async def kept(number: int) -> int:
            self._ran += 1
            if self._ran == self._n:
                self._all_ran.set()
            return number

        self._task = kept

    async def both(self, what: str) -> None:
        """Once to know what it costs, once for the sampler."""
        measure = self._publish if what == "publish" else self._run
        async with self._app:
            print(json.dumps(await measure()), flush=True)
            await measure(is_told=True)
            print("done", flush=True)
            await _told()

    async def _publish(self, *, is_told: bool = False) -> Cost:
        """Gathered hundreds of single calls."""
        if is_told:
            await _told()
        before = _now()
        for start in range(0, self._n, LOT):
            await asyncio.gather(*(self._task.delay(number) for number in range(start, start + LOT)))
        return self._cost(before)

    async def _run(self, *, is_told: bool = False) -> Cost:
        """Tasks that wait in the queue, from the start of the worker to the last result."""
        self._ran = 0
        self._all_ran.clear()
        for start in range(0, self._n, LOT):
            sent = await self._task.delay_many([(number,) for number in range(start, start + LOT)])
        if is_told:
            await _told()
        before = _now()
        async with Worker(self._app, WorkerConfig(concurrency=self._concurrency)):
            await self._all_ran.wait()
            await sent[-1].get(timeout=60)
            return self._cost(before)

    def _cost(self, before: tuple[float, ...]) -> Cost:
        """Microseconds a task."""
        passed = [(now - then) / self._n * 1e6 for now, then in zip(_now(), before, strict=True)]
        return dict(zip(("user", "kernel", "wall"), passed, strict=True))


def _now() -> tuple[float, ...]:
    """Seconds in user mode and in the kernel, of all threads, and of the clock."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime, time.perf_counter()


async def _told() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    what, broker, concurrency, n = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:

        async def run() -> None:
            await Program(broker, int(concurrency), int(n) // LOT * LOT).both(what)

        runner.run(run())


if __name__ == "__main__":
    main()
