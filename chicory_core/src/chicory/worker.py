"""The worker: joins pump, execution, leases and settling; starts, drains and stops them."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING, Self, final

from chicory.app import Chicory
from chicory.backoff import Backoff
from chicory.clock import within
from chicory.errors import BackendError, BrokerError, PluginNotFoundError, ThreadsExhaustedError
from chicory.execution import Execution
from chicory.guard import Guard, Phase
from chicory.healthcheck import PartHealth, WorkerHealth, health_of
from chicory.heartbeat import beat_for_ever, forget_workers
from chicory.launch import current_launch
from chicory.lease import LeaseKeeper
from chicory.logs import get_logger
from chicory.loop_thread import LoopThread
from chicory.message import WorkerStats, new_id
from chicory.middleware import ExecuteMiddleware, compose_execute, in_order
from chicory.outbox import Outbox
from chicory.processes import ProcessPool, process_pool
from chicory.pump import Pump
from chicory.signals import draining_on_signals
from chicory.tally import Tally
from chicory.threads import ThreadPool
from chicory.verdict import Keeping

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from types import TracebackType

    from chicory.client import Connection
    from chicory.config import WorkerConfig
    from chicory.message import Delivery

__all__ = ["PartHealth", "Worker", "WorkerHealth", "offered_layers"]

_DLQ_PLUGIN = "dlq"
_IGNORED_TTL = 120.0
"""Seconds for which the state of a task that ignores its result is kept: the dedup window."""
_SETTLE_TIME = 5.0
"""Seconds at the end of a drain for what was finished to be settled; what is left then runs again elsewhere."""


@final
class Worker:
    """Runs an app's tasks in this process. ``await worker.run()``, or ``async with worker:`` beside other work.

    *config* replaces ``app.config.worker``; options of the command line beat both. A worker has its own connections: it does
    not touch the app's client.

    Raises:
        ConfigurationError: the settings do not fit, or a plugin they need is missing.
    """

    def __init__(self, app: Chicory, config: WorkerConfig | None = None, *, rng: Random | None = None) -> None:
        self._app = app
        self.config = (config or app.config.worker).override(current_launch().worker)
        self.hostname = socket.gethostname()
        self.worker_id = f"{self.hostname}-{os.getpid()}-{new_id()[-6:]}"
        self._clock, self._rng = app.clock, rng or Random()
        self._tally = Tally(self.worker_id, app.clock, app.event_sinks())
        self._log = get_logger("worker", worker_id=self.worker_id)
        self._main: asyncio.Task[None] | None = None
        self._pump: Pump | None = None
        self._exhausted: ThreadsExhaustedError | None = None
        self._stop_told = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stop_seconds = self.config.shutdown_timeout
        self._started_at: datetime | None = None
        self._since = 0.0
        self._is_running = False
        if self.config.use_dead_letter_queue:
            self._require_dead_letters()

    # --- life ----------------------------------------------------------------------------------

    async def run(self, *, on_ready: Callable[[], object] | None = None) -> None:
        """Work until SIGTERM, SIGINT or `stop`, then drain: a second signal skips the wait, a third ends the process.

        A task loop that does not turn for ``stall_limit_seconds`` ends the process, with exit code 70.

        *on_ready* is called once it works. Raises whatever made the worker fail; returns after a drain. Cancelling it puts
        back what runs, without waiting.

        Raises:
            ThreadsExhaustedError: sync tasks past their timeout hold half of the threads; it has drained.
        """
        with draining_on_signals(self.request_stop, self.hurry):
            await self.start()
            if on_ready is not None:
                on_ready()
            try:
                await self._ended()
            except asyncio.CancelledError:
                await self.stop(timeout=0)  # whoever cancels does not want to wait for what runs
                raise

    async def start(self) -> None:
        """Connect, and work in the background. Safe to repeat while it runs.

        Raises:
            BrokerConnectionError, BackendConnectionError: a server did not answer; nothing is left open.
            ConfigurationError: nothing can listen at ``health_address``.
        """
        if self._main is not None:
            return
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._main = asyncio.create_task(self._work(ready), name=f"chicory-worker-{self.worker_id}")
        try:
            await asyncio.wait([self._main, ready], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.stop(timeout=0)
            raise
        if not ready.done():
            await self._ended()

    async def stop(self, timeout: float | None = None) -> None:
        """Drain, and return when everything has stopped. Safe to repeat, and before `start`.

        What was received and not started goes back at once; what runs gets *timeout* seconds (None: ``shutdown_timeout``), is
        cancelled then, and goes back. Neither counts as a retry.
        """
        if self._main is None:
            return
        if timeout is not None:
            self._stop_seconds = timeout
        self.request_stop()
        await self._ended()

    def request_stop(self) -> None:
        """Begin to drain, without waiting for it."""
        self._stop_told.set()

    def hurry(self) -> None:
        """While draining: do not wait any longer for what runs."""
        self._hurry.set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    async def _ended(self) -> None:
        """Wait for the end of the main task, and raise what it raised."""
        main = self._main
        if main is None:
            return
        await asyncio.wait([main])
        if self._main is not None:
            self._main = None
            self._stop_told, self._hurry = asyncio.Event(), asyncio.Event()
        try:
            main.result()
        except BaseExceptionGroup as group:
            raise _first_of(group) from None

    # --- looking at it -------------------------------------------------------------------------

    def get_stats(self) -> WorkerStats:
        """What this worker does right now, without I/O."""
        backend = self._app.backend
        return WorkerStats(
            worker_id=self.worker_id,
            hostname=self.hostname,
            pid=os.getpid(),
            queues=self.config.queues,
            concurrency=self.config.concurrency,
            tasks_processed=self._tally.processed,
            tasks_failed=self._tally.failed,
            active_tasks=self._pump.active if self._pump else 0,
            started_at=self._started_at,
            last_heartbeat=self._clock.now(),
            is_running=self._is_running,
            uptime_seconds=self._clock.monotonic() - self._since if self._started_at else 0.0,
            broker=self._app.broker.address,
            backend=backend.address if backend is not None else None,
        )

    async def healthcheck(self) -> WorkerHealth:
        """Ask broker and backend whether they answer."""
        backend = self._app.backend
        broker_health = await health_of(self._app.broker)
        backend_health = await health_of(backend) if backend is not None else None
        errors = [part.error for part in (broker_health, backend_health) if part is not None and part.error]
        return WorkerHealth(
            is_running=self._is_running, broker=broker_health, backend=backend_health, error="; ".join(errors) or None
        )

    # --- work ----------------------------------------------------------------------------------

    async def _work(self, ready: asyncio.Future[None]) -> None:
        self._exhausted = None
        async with AsyncExitStack() as stack:
            guard = Guard(self.worker_id, self.hostname, self.config, self._tally, self._exhaust)
            stack.callback(guard.stop)
            guard.start(asyncio.get_running_loop())
            connection = await stack.enter_async_context(self._app.connection())
            await stack.enter_async_context(self._app.lifespan("worker", self))
            threads = ThreadPool(self.config.threads or self.config.concurrency)
            stack.callback(threads.close)
            processes = await stack.enter_async_context(process_pool(self.config, self._app.launch, self.worker_id))
            leases = await self._prepare(connection)
            outbox = Outbox(
                connection.joined,
                connection.backend,
                leases,
                Backoff(self._clock, self._rng),
                on_lost=self._lose,
                on_room=self._make_room,
                observers=self._app.offered("chicory_settle_observers"),
            )
            stack.callback(outbox.abort)
            self._pump = pump = self._build_pump(connection, outbox, leases, threads, processes)
            guard.learn(pump, leases, threads)
            self._began()
            stack.push_async_callback(self._say_stopped, connection)
            await self._beat(connection)
            keeper = await self._keep_alive(leases, stack, guard)
            guard.enter(Phase.WORKING)
            self._say_started()
            ready.set_result(None)
            await self._until_drained(pump, keeper, connection, guard)
            await asyncio.gather(self._settle_rest(outbox), processes.close())
        if self._exhausted is not None:
            raise self._exhausted

    async def _prepare(self, connection: Connection) -> LeaseKeeper:
        wanted = self.config.lease_seconds
        in_force = await connection.broker.prepare(self.config.queues, wanted)
        for queue, seconds in in_force.items():
            if seconds != wanted:
                self._log.warning("lease_is_recorded_otherwise", queue=queue, wanted=wanted, in_force=seconds)
        loop = asyncio.get_running_loop()
        leases = LeaseKeeper(self._clock, self._rng, on_lost=lambda delivery: loop.call_soon_threadsafe(self._lose, delivery))
        leases.lease_is(min(in_force.values()))
        return leases

    def _build_pump(
        self, connection: Connection, outbox: Outbox, leases: LeaseKeeper, threads: ThreadPool, processes: ProcessPool
    ) -> Pump:
        app = self._app
        keeps_results = connection.backend is not None
        execution = Execution(
            app=app,
            tasks=app.registry,
            worker_id=self.worker_id,
            clock=self._clock,
            config=self.config,
            serializers=app.serializers,
            written_with=app.serializer,
            max_bytes=app.config.max_message_bytes,
            keeps_results=keeps_results,
            threads=threads,
            processes=processes,
            notes=outbox,
            child_contexts=app.offered("chicory_child_contexts"),
        )
        return Pump(
            broker=connection.broker,
            joined=connection.joined,
            execution=execution,
            chain=compose_execute(in_order([*execution.layers(), *offered_layers(app)])),
            outbox=outbox,
            leases=leases,
            clock=self._clock,
            backoff=Backoff(self._clock, self._rng),
            config=self.config,
            keeping=Keeping(result_ttl=app.result_ttl, ignored_ttl=_IGNORED_TTL) if keeps_results else None,
            watch=self._tally,
        )

    async def _keep_alive(self, leases: LeaseKeeper, stack: AsyncExitStack, guard: Guard) -> asyncio.Future[None]:
        """Renew leases and beat from a thread of its own, until the stack is left."""
        thread = LoopThread("chicory-lease")
        thread.start()
        stack.callback(thread.stop)
        guard.watch_leases(thread)
        keeper = asyncio.wrap_future(thread.submit(self._keep(leases)))
        started = asyncio.wrap_future(thread.submit(leases.started()))
        await asyncio.wait([started, keeper], return_when=asyncio.FIRST_COMPLETED)
        return keeper

    async def _keep(self, leases: LeaseKeeper) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(leases.keep(self._app.broker_twin), name="leases")
            if self._app.backend is not None:
                beating = beat_for_ever(
                    self._app.backend_twin,
                    self.get_stats,
                    interval=self.config.heartbeat_interval,
                    ttl=self.config.heartbeat_ttl,
                    clock=self._clock,
                    rng=self._rng,
                )
                group.create_task(beating, name="heartbeat")

    async def _until_drained(self, pump: Pump, keeper: asyncio.Future[None], connection: Connection, guard: Guard) -> None:
        """Work until told to stop, then drain. A part that ends by itself is a defect, and ends the worker."""
        async with asyncio.TaskGroup() as group:
            parts = [
                group.create_task(pump.run(), name="pump"),
                group.create_task(self._watch_keeper(keeper), name="keeper"),
                group.create_task(self._clean_for_ever(connection), name="cleanup"),
            ]
            await self._stop_told.wait()
            guard.enter(Phase.DRAINING)
            self._tally.changed("worker.draining")
            self._log.info("worker_draining", active=pump.active)
            await pump.drain(self._stop_seconds, self._hurry)
            for part in parts:
                part.cancel()

    async def _watch_keeper(self, keeper: asyncio.Future[None]) -> None:
        await keeper

    async def _clean_for_ever(self, connection: Connection) -> None:
        while True:
            await self._clock.sleep(self.config.cleanup_interval * self._rng.uniform(0.9, 1.1))
            try:
                await self._clean(connection)
            except (BrokerError, BackendError) as error:
                self._log.warning("cleanup_failed", error_type=type(error).__qualname__)

    async def _clean(self, connection: Connection) -> None:
        stale = self.config.stale_workers_timeout
        for queue in self.config.queues:
            await connection.broker.cleanup(queue, stale)
        if connection.backend is not None:
            gone = await forget_workers(
                connection.backend, now=self._clock.now(), stale_seconds=stale, result_ttl=self._app.result_ttl
            )
            if gone:
                self._log.info("workers_forgotten", count=gone)

    async def _settle_rest(self, outbox: Outbox) -> None:
        try:
            await within(self._clock, _SETTLE_TIME, outbox.drain())
        except TimeoutError:
            self._log.error("left_unsettled", count=outbox.waiting)

    # --- small steps ---------------------------------------------------------------------------

    def _began(self) -> None:
        self._started_at, self._since = self._clock.now(), self._clock.monotonic()
        self._is_running = True

    def _say_started(self) -> None:
        """From here on it outlives its store: what is still missing at the start ends it."""
        self._log.info("worker_started", queues=self.config.queue, concurrency=self.config.concurrency)
        self._tally.changed("worker.started")

    async def _beat(self, connection: Connection) -> None:
        if connection.backend is not None:
            await connection.backend.beat(self.get_stats(), self.config.heartbeat_ttl)

    async def _say_stopped(self, connection: Connection) -> None:
        self._is_running = False
        self._pump = None
        self._tally.changed("worker.stopped")
        self._log.info("worker_stopped", processed=self._tally.processed, failed=self._tally.failed)
        try:
            await self._beat(connection)
        except BackendError as error:
            self._log.warning("heartbeat_failed", error_type=type(error).__qualname__)

    def _exhaust(self, abandoned: int, size: int) -> None:
        """Half of the threads hang: go before all of them do. Async tasks finish, and leases are kept, until the drain ends."""
        self._exhausted = ThreadsExhaustedError(abandoned, size)
        self._log.error("threads_exhausted", abandoned=abandoned, threads=size)
        self._tally.changed("worker.exhausted")
        self.request_stop()

    def _lose(self, delivery: Delivery) -> None:
        if self._pump is not None:
            self._pump.lose(delivery)

    def _make_room(self) -> None:
        if self._pump is not None:
            self._pump.make_room()

    def _require_dead_letters(self) -> None:
        if not any(info.name == _DLQ_PLUGIN and info.state == "active" for info in self._app.plugins):
            known = tuple(info.name for info in self._app.plugins)
            raise PluginNotFoundError("use_dead_letter_queue of plugin", _DLQ_PLUGIN, known, f"chicory-{_DLQ_PLUGIN}")


def offered_layers(app: Chicory) -> list[ExecuteMiddleware]:
    """The layers around execution that the app's plugins offer."""
    return list(app.offered("chicory_execute_middleware"))


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error at the root of a group: what a person wants to read first."""
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first
