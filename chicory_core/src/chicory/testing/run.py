"""Running an app's tasks in a test: in memory, under a clock that stands still, until nothing is left to do."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast, final

from chicory.errors import NotIdleError, SyncCallError, TaskFailedError
from chicory.memory import MemoryBackend, MemoryBroker, MemoryStore
from chicory.memory_store import SETTLED
from chicory.message import TaskState
from chicory.result import AsyncResult
from chicory.task import Task
from chicory.testing.clock import FakeClock
from chicory.testing.driven import DrivenBackend
from chicory.testing.recorder import Failure, Probe, Recorder
from chicory.worker import Worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from chicory.app import Chicory
    from chicory.backend import Backend
    from chicory.message import TaskMessage, TaskResult

__all__ = ["AppRun", "in_memory"]

PATIENCE = 30.0
MOST_RUNS = 1000
MOST_RUNS_OF_A_JUMP = 10_000
_SMALLEST_STEP = 1e-6
"""The resolution of the clock, in seconds."""
_CONCURRENCY = 16
"""The same on every machine, so that tests run in the same order everywhere."""


class _Limits:
    """How much may happen before somebody should be told."""

    def __init__(self, recorder: Recorder, runs: int, timeout: float) -> None:
        self._recorder, self._runs, self._timeout = recorder, runs, timeout
        self._before = recorder.runs.copy()
        self._until = time.monotonic() + timeout

    def check(self) -> None:
        made = self._recorder.runs - self._before
        if made.total() > self._runs:
            tasks = tuple(f"{name} (ran {count} times)" for name, count in made.most_common(3))
            hint = "it is sent again by what it does: give that call a countdown, or raise limit="
            raise NotIdleError(f"{self._runs} runs", tasks, hint)

    async def wait(self, woken: asyncio.Future[None]) -> None:
        try:
            await asyncio.wait_for(woken, max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            tasks = tuple(f"{name} ({count} running)" for name, count in (+self._recorder.running).items())
            hint = "it waits for something that does not come, or for real time: replace that in the test, or raise timeout="
            raise NotIdleError(f"{self._timeout:g} s of real time", tasks, hint) from None


@final
class AppRun:
    """An app that runs in memory for one test: what it sent, what failed, and when time passes. See `in_memory`.

    Methods that end in ``_sync`` are for tests without event loop; they raise ``SyncCallError`` where one runs.
    """

    def __init__(self, app: Chicory, clock: FakeClock, store: MemoryStore, recorder: Recorder) -> None:
        self.app, self.clock = app, clock
        self._store, self._recorder = store, recorder
        self._has_worker = False
        self.concurrency = _CONCURRENCY
        """Tasks that run at once."""

    def __repr__(self) -> str:
        return f"<{self.app!r} under test, {len(self._recorder.sent)} sent>"

    # --- let it run ------------------------------------------------------------------------------

    async def until_idle(self, *, raise_failures: bool = False, limit: int = MOST_RUNS, timeout: float = PATIENCE) -> None:
        """Run what is due, and what follows from it now, until nothing is left; with a worker of the core, in this loop.

        *raise_failures* raises what failed for good on the way, caused by the task's own exception.

        Raises:
            NotIdleError: more than *limit* runs were made, or *timeout* seconds of real time have passed; the tasks are named.
            TaskFailedError: asked for with *raise_failures*.
        """
        failed = len(self.failures)
        await self._until_idle(_Limits(self._recorder, limit, timeout))
        if raise_failures and self.failures[failed:]:
            raise _as_error(self.failures[failed:]) from self.failures[failed].error

    def until_idle_sync(self, *, raise_failures: bool = False, limit: int = MOST_RUNS, timeout: float = PATIENCE) -> None:
        """`until_idle` for tests without event loop."""
        running = self.until_idle(raise_failures=raise_failures, limit=limit, timeout=timeout)
        self.app.run_sync(running, blocking="until_idle_sync()", instead="await ....until_idle()")

    async def jump(
        self,
        seconds: float,
        *,
        raise_failures: bool = False,
        limit: int = MOST_RUNS_OF_A_JUMP,
        timeout: float = PATIENCE,
    ) -> None:
        """Let *seconds* pass in no time; retries, countdowns and moments come due one after the other, and run at theirs.

        Raises as `until_idle` does.
        """
        failed, clock = len(self.failures), self.clock
        target = clock.monotonic() + seconds
        limits = _Limits(self._recorder, limit, timeout)
        await self._until_idle(limits)
        while (step := self._until_next_due()) <= target - clock.monotonic():
            await clock.advance(max(step, _SMALLEST_STEP))
            await self._until_idle(limits)
        await clock.advance(max(0.0, target - clock.monotonic()))
        await self._until_idle(limits)
        if raise_failures and self.failures[failed:]:
            raise _as_error(self.failures[failed:]) from self.failures[failed].error

    def jump_sync(
        self,
        seconds: float,
        *,
        raise_failures: bool = False,
        limit: int = MOST_RUNS_OF_A_JUMP,
        timeout: float = PATIENCE,
    ) -> None:
        """`jump` for tests without event loop."""
        jumping = self.jump(seconds, raise_failures=raise_failures, limit=limit, timeout=timeout)
        self.app.run_sync(jumping, blocking="jump_sync()", instead="await ....jump(...)")

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """A worker beside the test, in this loop: for code that sends a task and waits for its result."""
        worker = self._worker()
        await worker.start()
        self._has_worker = True
        try:
            with self._recorder.probe.watching(asyncio.get_running_loop()):
                yield
        finally:
            self._has_worker = False
            await self._stop(worker)

    # --- look and disturb ------------------------------------------------------------------------

    def sent(self, task: Task[..., Any] | str | None = None) -> list[TaskMessage]:
        """Every message that was sent so far, in order, by the test and by tasks; of one task, or of all. No retries.

        Raises:
            TaskNotFoundError: the name is neither that of a task here nor of anything sent: it is misspelt.
        """
        messages = [sent.message for sent in self._recorder.sent]
        if task is None:
            return messages
        name = task if isinstance(task, str) else task.name
        found = [message for message in messages if message.name == name]
        if not found:
            self.app.get_task(name)
        return found

    @property
    def failures(self) -> list[Failure]:
        """What failed for good so far, with the exceptions that were raised."""
        return self._recorder.failures

    def fail(self, task: Task[..., Any] | str, error: BaseException | type[BaseException], times: int | None = 1) -> None:
        """Let the next *times* runs of *task* (None: all) raise *error* instead of running; its retry policy decides the rest.

        Raises:
            TaskNotFoundError: no task of this app has that name.
        """
        found = self.app.get_task(task if isinstance(task, str) else task.name)
        self._recorder.fail(found.name, error, times)

    async def result(self, task_id: str) -> TaskResult:
        """Where a task stands, its value or its error; raises ``ResultNotFoundError`` if there is no such task."""
        return await AsyncResult[Any](task_id, self.app.backend).info()

    def result_sync(self, task_id: str) -> TaskResult:
        """`result` for tests without event loop."""
        return self.app.run_sync(self.result(task_id), blocking="result_sync()", instead="await ....result(...)")

    # --- for what builds on it -------------------------------------------------------------------

    @property
    def store(self) -> MemoryStore:
        """The queues and records."""
        return self._store

    def sent_by_tasks(self) -> list[TaskMessage]:
        """As `sent`, without what the test has sent itself."""
        return [sent.message for sent in self._recorder.sent if sent.is_by_a_task]

    def probe(self, probe: Probe) -> None:
        """Put *probe* between the worker and the functions of tasks."""
        self._recorder.probe = probe

    # --- steps -----------------------------------------------------------------------------------

    async def _until_idle(self, limits: _Limits) -> None:
        if self._has_worker:
            await self._quiet(limits)
            return
        while not self._is_quiet():
            async with self.working():
                await self._quiet(limits)
            if self._recorder.probe.is_dead:
                await self._recorder.probe.restart()

    def _worker(self) -> Worker:
        config = self.app.config.worker
        settings = {"queue": ",".join(self._queues()), "concurrency": self.concurrency, "prefetch": 0}
        return Worker(self.app, config.model_copy(update=settings))

    def _queues(self) -> tuple[str, ...]:
        """The queues of production first, in their order, then those of all tasks that are here."""
        tasks = self.app.tasks
        used = {sent.message.queue for sent in self._recorder.sent if sent.message.name in tasks}
        used |= {task.options_of_task.queue for task in tasks.values()}
        return tuple(dict.fromkeys((*self.app.config.worker.queues, *sorted(used))))

    async def _quiet(self, limits: _Limits) -> None:
        """Return once nothing runs and nothing is due, or the process that works has died."""
        while True:
            limits.check()
            with self._store.lock:
                if self._recorder.probe.is_dead or self._is_quiet():
                    return
                woken = self._store.wakeups.add((SETTLED,))
            try:
                await limits.wait(woken)
            finally:
                with self._store.lock:
                    self._store.wakeups.drop((SETTLED,), woken)

    def _is_quiet(self) -> bool:
        queues, now = self._queues(), self.clock.now().timestamp()
        with self._store.lock:
            here = [message for message in self._store.messages.values() if message.envelope.queue in queues]
            is_waiting = any(message.receipt is not None or message.due <= now for message in here)
        return not is_waiting and not self._recorder.running.total()

    def _until_next_due(self) -> float:
        """Seconds until the next message comes due; infinite if none will."""
        queues, now = self._queues(), self.clock.now().timestamp()
        with self._store.lock:
            here = (message.due for message in self._store.messages.values() if message.envelope.queue in queues)
            return min(here, default=float("inf")) - now

    async def _stop(self, worker: Worker) -> None:
        """Stop *worker*; a task that will not be cancelled is given the time of the clock, which costs none."""
        stopping = asyncio.ensure_future(worker.stop(timeout=0))
        await self.clock.settle()
        while not stopping.done() and self._recorder.running.total():
            await self.clock.advance(1.0)
        await stopping


def _as_error(failures: list[Failure]) -> TaskFailedError:
    first, *others = failures
    error = TaskFailedError(first.task_id, first.task, TaskState.FAILURE, type(first.error).__name__, str(first.error))
    for other in others:
        error.add_note(f"and task {other.task!r} failed with {type(other.error).__name__}: {other.error}")
    return error


@final
class in_memory:  # noqa: N801 - it is called like the function that it is to its users
    """*app*, as it is configured for production, run in memory under a clock that stands still, and given back at the end.

    Its tasks, imported anywhere, send to the memory broker meanwhile; no server, file or variable is touched. The clock
    starts at *now* (default: the real time). ``with`` is for code without event loop, ``async with`` for code with one::

        async with in_memory(app) as run:
            await place_order.delay(17)
            await run.until_idle()
    """

    def __init__(self, app: Chicory, *, now: datetime | None = None) -> None:
        self._app, self._now = app, now
        self._stack = ExitStack()

    def __enter__(self) -> AppRun:
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented way raises
            raise SyncCallError("leaving `with in_memory(...)`", "async with in_memory(...)")
        return self._begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        with self._stack:
            self._close_clients()

    async def __aenter__(self) -> AppRun:
        return self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._stack:
            await self._app.disconnect()
            await asyncio.to_thread(self._close_clients)

    def _begin(self) -> AppRun:
        clock = FakeClock(datetime.now(UTC) if self._now is None else self._now)
        store = MemoryStore(clock)
        recorder = Recorder(store)
        run = AppRun(self._app, clock, store, recorder)
        backend = None
        if self._app.backend is not None:
            backend = cast("Backend", DrivenBackend(MemoryBackend(store=store), store, run.until_idle))
        with ExitStack() as stack:
            stack.enter_context(self._app.plugins.including("testkit", recorder))
            stack.enter_context(self._app.replacing(MemoryBroker(store=store), backend, clock))
            self._stack = stack.pop_all()
        return run

    def _close_clients(self) -> None:
        """Close what was opened on other loops, each on its own; what a loop left open when it was closed is gone with it."""
        for loop, client in list(self._app.clients.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(client.close(), loop).result()
            elif not loop.is_closed():
                loop.run_until_complete(client.close())
