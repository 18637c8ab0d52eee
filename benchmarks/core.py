"""The core alone: worker, onion, batching and results on the memory broker, with an async no-op, on one core."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from chicory import Chicory, Worker

_LOT = 500


def rate(n: int, *, uvloop: bool) -> float:
    """Tasks a second, from the start of the first task until all have ended and their results are stored."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with asyncio.Runner(loop_factory=loop_factory() if uvloop else None) as runner:
        return n / runner.run(drain(n))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    import uvloop  # noqa: PLC0415 - not where plain asyncio is measured

    return uvloop.new_event_loop


def app_with_task(began: Callable[[int], None]) -> tuple[Chicory, Any]:
    """An app in memory, and its task, which calls *began*."""
    app = Chicory(broker="memory", backend="memory")

    @app.task(name="benchmark.kept")
    async def kept(number: int) -> int:
        began(number)
        return number

    return app, kept


async def publish(task: Any, n: int) -> list[Any]:
    return [
        handle
        for start in range(0, n, _LOT)
        for handle in await task.delay_many([(i,) for i in range(start, min(start + _LOT, n))])
    ]


async def drain(n: int, *, before: Callable[[], object] = bool, after: Callable[[], object] = bool) -> float:
    """Seconds for *n* tasks that were published before; *before* and *after* are called when the worker starts and is done."""
    ran, started = 0, 0.0
    all_ran = asyncio.Event()

    def began(_: int) -> None:
        nonlocal ran, started
        started = started or time.perf_counter()
        ran += 1
        if ran == n:
            all_ran.set()

    app, task = app_with_task(began)
    async with app:
        handles = await publish(task, n)
        before()
        async with Worker(app):
            await all_ran.wait()
            while (await app.broker.stats()).running:  # noqa: ASYNC110 - the broker tells nobody when it is empty
                await asyncio.sleep(0)
            seconds = time.perf_counter() - started
            after()
        if ran != n or await handles[-1].get() != n - 1:
            raise RuntimeError(f"{ran} tasks ran instead of {n}")
    return seconds
