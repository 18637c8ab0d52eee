"""streaq on Redis streams, with uvloop (``anyio_kwargs``): a message is acknowledged in the transaction that keeps its result.

``concurrency`` 64; sync functions run in threads. ``ttl=0`` keeps no result. It waits by pub/sub, so there is no tighter
setting. Results are kept for an hour.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from streaq import Worker

from benchmarks import tasks
from benchmarks.adapter import About, AsyncAdapter, Row, Setup, script
from benchmarks.probes import Probe, RedisProbe
from benchmarks.tasks import SERVER

ABOUT = About(title="streaq", broker="redis", guarantee="at least once (streams)")
_FASTEST, _DEFAULT = 64, 16

worker = Worker(
    redis_url=SERVER or "redis://127.0.0.1",
    concurrency=Setup.from_environment().tasks(_FASTEST, _DEFAULT),
    anyio_kwargs={"use_uvloop": True},
)
_TTL = 3600
_KINDS: dict[str, Any] = {
    name: worker.task(name=name, ttl=0 if name == "ignored" else _TTL, silent=True)(function)  # type: ignore[call-overload] # bodies of any shape
    for name, function in {
        "kept": tasks.kept,
        "ignored": tasks.ignored,
        "slept": tasks.slept,
        "threaded": tasks.kept_sync,
        "computed": tasks.computed,
        "carried": tasks.carried,
    }.items()
}


class _Adapter(AsyncAdapter):
    about = ABOUT
    bulk = True

    def commands(self, setup: Setup) -> list[list[str]]:
        return [[script("streaq"), "run", f"{__name__}:worker", "--workers", str(setup.processes)]]

    @contextlib.asynccontextmanager
    async def session(self, setup: Setup) -> AsyncIterator[None]:
        async with worker:
            yield

    async def send(self, kind: str, row: Row) -> Any:
        return await _KINDS[kind].enqueue(*row)

    async def send_many(self, kind: str, rows: Sequence[Row]) -> None:
        await worker.enqueue_many([_KINDS[kind].enqueue(*row) for row in rows])

    async def wait(self, sent: Any) -> Any:
        return (await sent.result(timeout=10)).result

    def unsettled(self, probe: Probe) -> int:
        """Messages leave the stream when they are acknowledged."""
        assert isinstance(probe, RedisProbe)  # noqa: S101 - narrows the type
        return int(probe.ask("XLEN", f"{worker.stream_key}normal"))

    def results(self, probe: Probe) -> int | None:
        return None


ADAPTER = _Adapter()
