"""Watches one worker from outside of its task loop, and answers for it."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from enum import StrEnum
from typing import TYPE_CHECKING, Any, final

from chicory.logs import get_logger
from chicory.probes import ProbeServer, StateFile
from chicory.vitals import Vitals
from chicory.watchdog import Watchdog

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from chicory.config import WorkerConfig
    from chicory.lease import LeaseKeeper
    from chicory.loop_thread import LoopThread
    from chicory.middleware import Attempt
    from chicory.pump import Pump
    from chicory.tally import Tally
    from chicory.threads import ThreadPool
    from chicory.watchdog import Pulse

__all__ = ["Guard", "Phase"]

_WATCHDOG_SECONDS = 10.0
"""A watchdog that has not looked for so long is not to be believed."""


class Phase(StrEnum):
    """Where a worker is in its life."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"


@final
class Guard:
    """The watchdog of one worker, its probes and its state file; what they need to know about the worker comes by and by.

    *on_exhausted* is called once, on the loop, when half of the threads for sync tasks are lost: how many, of how many.
    """

    def __init__(
        self, worker_id: str, hostname: str, config: WorkerConfig, tally: Tally, on_exhausted: Callable[[int, int], object]
    ) -> None:
        self._worker_id, self._hostname, self._config = worker_id, hostname, config
        self._tally, self._on_exhausted = tally, on_exhausted
        self._watchdog = Watchdog(
            self, report_after=config.block_report_seconds, stall_after=config.stall_limit_seconds, worker_id=worker_id
        )
        self._file = StateFile(worker_id, config.health_file, self.vitals)
        self._phase = Phase.STARTING
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pump: Pump | None = None
        self._leases: LeaseKeeper | None = None
        self._threads: ThreadPool | None = None
        self._lease_pulse: Pulse | None = None
        self._stack = ExitStack()
        self._log = get_logger("worker", worker_id=worker_id)

    # --- on the loop ---------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the running *loop*, and answer to probes.

        Raises:
            ConfigurationError: nothing can listen at ``health_address``.
        """
        self._loop = loop
        if self._config.health_address is not None:
            server = ProbeServer(self._config.health_address, self.vitals)
            server.start()
            self._stack.callback(server.stop)
            self._log.info("health_served", address=server.address)
        self._file.start()
        self._stack.callback(self._file.stop)
        self._watchdog.start()
        self._stack.callback(self._watchdog.stop)

    def stop(self) -> None:
        """Return when nothing of it is left."""
        self._stack.close()

    def learn(self, pump: Pump, leases: LeaseKeeper, threads: ThreadPool) -> None:
        """These are the worker's parts."""
        self._pump, self._leases, self._threads = pump, leases, threads

    def watch_leases(self, thread: LoopThread) -> None:
        """This thread keeps the leases."""
        self._lease_pulse = self._watchdog.add(thread.call_soon)

    def enter(self, phase: Phase) -> None:
        """The worker has come to *phase*."""
        self._phase = phase
        self._file.renew()

    # --- on any thread -------------------------------------------------------------------------

    def vitals(self) -> Vitals:
        """How the worker is. Asks nobody."""
        silent = tuple(self._silent())
        return Vitals(
            worker_id=self._worker_id,
            hostname=self._hostname,
            pid=os.getpid(),
            live=not silent,
            ready=not (reasons := silent or tuple(self._away())),
            reasons=reasons,
            lag_seconds=round(self._watchdog.lag, 2),
        )

    def _silent(self) -> Iterator[str]:
        """Why it is not live."""
        limit = self._config.stall_limit_seconds
        if self._watchdog.lag >= limit:
            yield f"the task loop has not turned for {self._watchdog.lag:.0f} s"
        if self._lease_pulse is not None and self._lease_pulse.lag >= limit:
            yield f"the lease thread has not turned for {self._lease_pulse.lag:.0f} s"
        age = time.monotonic() - self._watchdog.ticked_at
        if age > _WATCHDOG_SECONDS:
            yield f"the watchdog has not looked for {age:.0f} s"

    def _away(self) -> Iterator[str]:
        """Why it is live and not ready."""
        if self._phase is not Phase.WORKING:
            yield str(self._phase)
        if not self._tally.is_connected:
            yield "the broker does not answer"
        elif self._leases is not None and not self._leases.is_answered:
            yield "the broker does not answer to renewals of leases"

    # --- on the watchdog's threads -------------------------------------------------------------

    def attempt_of(self, runner: asyncio.Task[Any]) -> Attempt | None:
        return self._pump.attempt_of(runner) if self._pump is not None else None

    def give_up(self) -> None:
        if self._leases is not None:
            self._leases.give_up()

    def stalled(self) -> None:
        self._tally.changed("worker.stalled")

    def ticked(self) -> None:
        threads = self._threads
        if threads is None or self._loop is None or not threads.is_exhausted:
            return
        self._threads = None  # once is enough
        self._loop.call_soon_threadsafe(self._on_exhausted, len(threads.abandoned), threads.size)
