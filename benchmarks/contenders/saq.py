"""SAQ on Redis: jobs are in an active list until they end, and a sweep starts lost ones again.

``concurrency`` 64 was its fastest with no-ops. Its functions take a context and keyword arguments; sync ones run in a pool of
threads. It has no pipelined bulk call (``map`` gathers). A job without result has ``ttl=-1``, which removes it when it ends.
The tight round trip looks for the result each millisecond (``poll_interval``; 0.5 s by default). SAQ has no switch for uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from saq import Queue
from saq.types import SettingsDict

from benchmarks import tasks
from benchmarks.adapter import About, AsyncAdapter, Row, Setup, script
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="SAQ", broker="redis", guarantee="at least once (active list and sweep)")
_FASTEST, _DEFAULT = 64, 10
_NAMES = ("number", "payload")
_RETRIES, _PATIENCE = 3, 10

queue = Queue.from_url(SERVER or "redis://127.0.0.1", name="default")


async def kept(_: Any, *, number: int) -> int:
    return await tasks.kept(number)


async def ignored(_: Any, *, number: int) -> None:
    await tasks.ignored(number)


async def slept(_: Any, *, number: int) -> int:
    return await tasks.slept(number)


async def carried(_: Any, *, number: int, payload: str) -> int:
    return await tasks.carried(number, payload)


def threaded(_: Any, *, number: int) -> int:
    return tasks.kept_sync(number)


def computed(_: Any, *, number: int) -> int:
    return tasks.computed(number)


settings: SettingsDict[Any] = {
    "queue": queue,
    "functions": [kept, ignored, slept, carried, threaded, computed],
    "concurrency": Setup.from_environment().tasks(_FASTEST, _DEFAULT),
}


class _Adapter(AsyncAdapter):
    about = ABOUT
    polls = True
    _look = 0.001

    def commands(self, setup: Setup) -> list[list[str]]:
        return [[script("saq"), f"{__name__}.settings", "--quiet", "--workers", str(setup.processes)]]

    @contextlib.asynccontextmanager
    async def session(self, setup: Setup) -> AsyncIterator[None]:
        self._look = 0.001 if setup.tight else 0.5
        await queue.connect()
        yield
        await queue.disconnect()

    async def send(self, kind: str, row: Row) -> Any:
        arguments = dict(zip(_NAMES, row, strict=False))
        return await queue.enqueue(kind, retries=_RETRIES, ttl=-1 if kind == "ignored" else 600, **arguments)

    async def wait(self, sent: Any) -> Any:
        """As ``Queue.apply`` does it, without its last sleep; ``refresh`` can miss a job that ends while it subscribes."""
        async with asyncio.timeout(_PATIENCE):
            while True:
                (job,) = await queue.jobs([sent.key])
                if job is not None and job.completed:
                    return job.result
                await asyncio.sleep(self._look)

    def unsettled(self, probe: Probe) -> int:
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(sum(probe.ask_all([("ZCARD", "saq:default:incomplete"), ("LLEN", "saq:default:active")])))

    def results(self, probe: Probe) -> int | None:
        """Written in the transaction that removes the job from the active list."""
        return None


ADAPTER = _Adapter()
