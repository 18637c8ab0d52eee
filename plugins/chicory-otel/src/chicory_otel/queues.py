"""How deep queues are, asked by one worker for all: a hundred that count the same queue would be a load of their own."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, final

from chicory.errors import BackendError, BackendNotConfiguredError, BrokerError
from chicory.plugin import App, Backend, Broker, WorkerView, dead_letter_queue

if TYPE_CHECKING:
    from chicory_otel.instruments import Instruments

__all__ = ["QueueSampler", "queues_to_sample"]


def queues_to_sample(worker_id: str, queues: tuple[str, ...], living: dict[str, tuple[str, ...]]) -> list[str]:
    """Those of *queues* of which *worker_id* is the first, by id, of the workers that live and read them.

    >>> queues_to_sample("b", ("mail", "video"), {"a": ("mail",), "b": ("mail", "video"), "c": ("video",)})
    ['video']
    """
    readers = {**living, worker_id: queues}
    return [queue for queue in queues if min(worker for worker, read in readers.items() if queue in read) == worker_id]


@final
class QueueSampler:
    """Asks, every *seconds*, for the queues that are this worker's to ask for, on connections of its own.

    Workers see each other by their heartbeats. Without a backend there are none, and each asks.
    """

    def __init__(self, app: App, worker: WorkerView, instruments: Instruments, seconds: float) -> None:
        self._app, self._worker, self._instruments, self._seconds = app, worker, instruments, seconds
        self._own: set[str] = set()

    async def run(self) -> None:
        """Sample until cancelled; what was sampled is reported no longer then."""
        try:
            while True:
                with contextlib.suppress(BrokerError, BackendError):  # they come back, and the worker logs it
                    await self._run()
                self._report({})
                await self._app.clock.sleep(self._seconds)
        finally:
            self._report({})

    async def _run(self) -> None:
        async with AsyncExitStack() as stack:
            broker = await stack.enter_async_context(self._app.broker_twin())
            backend: Backend | None = None
            with contextlib.suppress(BackendNotConfiguredError):
                backend = await stack.enter_async_context(self._app.backend_twin())
            while True:
                self._report(await self._sample(broker, backend))
                await self._app.clock.sleep(self._seconds)

    async def _sample(self, broker: Broker, backend: Backend | None) -> dict[str, dict[str, float]]:
        beats = [] if backend is None else await backend.heartbeats()
        living = {stats.worker_id: stats.queues for stats, is_live in beats if is_live and stats.is_running}
        samples = {}
        for queue in queues_to_sample(self._worker.worker_id, self._worker.config.queues, living):
            stats, dead = await broker.stats(queue), await broker.stats(dead_letter_queue(queue))
            samples[queue] = {
                "ready": stats.ready,
                "delayed": stats.delayed,
                "running": stats.running,
                "dead": dead.ready,
                "age": stats.oldest_seconds or 0.0,
            }
        return samples

    def _report(self, samples: dict[str, dict[str, float]]) -> None:
        for queue in self._own - samples.keys():
            self._instruments.queues.pop(queue, None)
        self._own = set(samples)
        self._instruments.queues.update(samples)
