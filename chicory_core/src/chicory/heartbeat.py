"""Heartbeats: saying that a worker lives, and forgetting those that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from chicory.backoff import Backoff
from chicory.errors import BackendError, WorkerLost
from chicory.logs import get_logger
from chicory.message import TaskState
from chicory.record import pack, unpack
from chicory.verdict import describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from random import Random

    from chicory.backend import Backend
    from chicory.clock import Clock
    from chicory.message import ResultRecord, WorkerStats

__all__ = ["beat_for_ever", "forget_workers"]


async def beat_for_ever(
    twin: Callable[[], Backend], stats: Callable[[], WorkerStats], *, interval: float, ttl: float, clock: Clock, rng: Random
) -> None:
    """Store *stats* every *interval* seconds until cancelled. Runs on the lease thread: a blocked task loop still lives."""
    log = get_logger("heartbeat")
    backoff = Backoff(clock, rng, longest=interval)
    while True:
        try:
            async with twin() as backend:
                while True:
                    await clock.sleep(interval)
                    await backend.beat(stats(), ttl)
                    backoff.reset()
        except BackendError as error:
            if backoff.tries == 0:
                log.warning("heartbeat_failed", error_type=type(error).__qualname__)
            await backoff.pause()


async def forget_workers(backend: Backend, *, now: datetime, stale_seconds: float, result_ttl: float) -> int:
    """Drop workers without heartbeat for *stale_seconds*, end the at-most-once tasks they held, and return how many went."""
    stale, fresh = [], set()
    for stats, is_live in await backend.heartbeats():
        beat = stats.last_heartbeat
        if is_live or (beat is not None and (now - beat).total_seconds() <= stale_seconds):
            fresh.add(stats.worker_id)
        else:
            stale.append(stats.worker_id)
    for worker_id, records in (await backend.held()).items():
        if worker_id not in fresh:
            await backend.store([_lost(record, worker_id, now, result_ttl) for record in records])
    return await backend.drop_workers(stale)


def _lost(record: ResultRecord, worker_id: str, now: datetime, result_ttl: float) -> ResultRecord:
    kind, text = describe(WorkerLost(worker_id))
    document = replace(unpack(record), error_type=kind, error=text, finished_at=now)
    return replace(record, state=TaskState.FAILURE, body=pack(document), ttl=result_ttl, holder=None)
