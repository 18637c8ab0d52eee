"""arq on Redis: a job stays in its queue until it ended, and runs again when its worker died (``in-progress`` keys).

``max_jobs`` 100. It only knows async functions, so what computes blocks its loop. Work is found by polling: ``poll_delay``
is 0.01 s here (0.5 s by default, in the row that says so), and so is the wait for results. Two processes are two commands,
as its documentation has it. ``keep_result=0`` keeps none. It has no switch for uvloop, and needs redis-py below 6.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import arq
from arq.connections import RedisSettings

from benchmarks import tasks
from benchmarks.adapter import About, AsyncAdapter, Row, Setup, script
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="arq", broker="redis", guarantee="at least once")
_FASTEST, _DEFAULT = 100, 10
_TIGHT, _USUAL = 0.01, 0.5
_SETTINGS = RedisSettings.from_dsn(SERVER or "redis://127.0.0.1")
_SETUP = Setup.from_environment()


async def kept(_: Any, number: int) -> int:
    return await tasks.kept(number)


async def ignored(_: Any, number: int) -> None:
    await tasks.ignored(number)


async def slept(_: Any, number: int) -> int:
    return await tasks.slept(number)


async def carried(_: Any, number: int, payload: str) -> int:
    return await tasks.carried(number, payload)


async def computed(_: Any, number: int) -> int:
    return await tasks.computed_async(number)


class WorkerSettings:
    functions = (kept, slept, carried, computed, arq.func(ignored, keep_result=0))
    redis_settings = _SETTINGS
    max_jobs = _SETUP.tasks(_FASTEST, _DEFAULT)
    poll_delay = _TIGHT if _SETUP.tight else _USUAL
    log_results = False


class _Adapter(AsyncAdapter):
    about = ABOUT
    polls = True
    threads_apart = False
    _look = _TIGHT

    def commands(self, setup: Setup) -> list[list[str]]:
        return [[script("arq"), f"{__name__}.WorkerSettings"] for _ in range(setup.processes)]

    @contextlib.asynccontextmanager
    async def session(self, setup: Setup) -> AsyncIterator[None]:
        self._look = _TIGHT if setup.tight else _USUAL
        self._pool = await arq.create_pool(_SETTINGS)
        yield
        await self._pool.aclose()

    async def send(self, kind: str, row: Row) -> Any:
        return await self._pool.enqueue_job(kind, *row)

    async def wait(self, sent: Any) -> Any:
        return await sent.result(timeout=10, poll_delay=self._look)

    def unsettled(self, probe: Probe) -> int:
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(probe.ask("ZCARD", "arq:queue"))

    def results(self, probe: Probe) -> int | None:
        """Written in the transaction that removes the job from the queue."""
        return None


ADAPTER = _Adapter()
