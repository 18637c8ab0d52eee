"""What surrounds the life of a worker, or a child: an SDK if asked for, samplers, and flushing at its end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from chicory.plugin import App, Event, Listener, WorkerView, new_id
from chicory_otel.flushing import flush, flushed
from chicory_otel.queues import QueueSampler
from chicory_otel.sdk import is_wanted, set_up

if TYPE_CHECKING:
    from chicory_otel.instruments import Instruments
    from chicory_otel.settings import OtelConfig

__all__ = ["life", "listener"]

_LAG_SECONDS = 1.0
"""How often the loop is asked how late it is."""
_KINDS = frozenset({"task.lease_lost", "broker.connected", "worker.stalled"})


@asynccontextmanager
async def life(app: App, worker: WorkerView | None, instruments: Instruments, settings: OtelConfig) -> AsyncIterator[None]:
    """Around a worker, or a child. What waits to be exported is exported at its end, for ``flush_seconds`` at most."""
    if is_wanted(os.environ, setup=settings.setup):
        # On a thread: importing an exporter takes long enough for the watchdog to speak of a blocked loop.
        name = worker.worker_id if worker is not None else new_id()
        await asyncio.to_thread(set_up, name, is_asked=settings.setup is True)
    try:
        if worker is None:
            yield
        else:
            async with _watched(app, worker, instruments, settings):
                yield
    finally:
        await flushed(settings.flush_seconds)


@asynccontextmanager
async def _watched(app: App, worker: WorkerView, instruments: Instruments, settings: OtelConfig) -> AsyncIterator[None]:
    instruments.workers[worker.worker_id] = worker
    sampler = QueueSampler(app, worker, instruments, settings.sample_seconds)
    work = (sampler.run(), _measure_lag(instruments)) if instruments.is_on else ()
    watching = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        del instruments.workers[worker.worker_id]
        for watcher in watching:
            watcher.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def _measure_lag(instruments: Instruments) -> None:
    """How late the loop turns, by its own clock: the time of an app may stand still."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_SECONDS
        await asyncio.sleep(_LAG_SECONDS)
        instruments.loop_lag.record(max(0.0, loop.time() - due))


def listener(instruments: Instruments, settings: OtelConfig) -> Listener:
    """What is counted of a worker's events; and when it is about to be ended by its watchdog, what waits is exported."""

    def listen(event: Event) -> None:
        if event.kind == "worker.stalled":
            flush(settings.flush_seconds)
        elif event.kind == "broker.connected":
            instruments.reconnects.add(1)
        else:
            instruments.lease_lost.add(1, {"queue": event.queue or ""})

    return Listener(kinds=_KINDS, sink=listen)
