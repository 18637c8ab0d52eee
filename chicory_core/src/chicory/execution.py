"""Running one delivery: the core's own layers, from the delivery cap to the call itself."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, final

from chicory.border import Returned, Run
from chicory.clock import Clock, within
from chicory.codec import read
from chicory.context import TaskContext
from chicory.errors import (
    DeliveryLimitError,
    EncodingError,
    FinalError,
    LeaseLost,
    MessageDecodeError,
    RetryError,
    TaskExpiredError,
    TaskNotFoundError,
    TaskTimeoutError,
    ValidationError,
)
from chicory.faultpoints import FaultPoint, reach
from chicory.invocation import decoded, encoded, max_retries_of
from chicory.logs import get_logger
from chicory.message import DeliveryMode, TaskState
from chicory.middleware import (
    Attempt,
    Decision,
    ExecuteMiddleware,
    Next,
    Outcome,
    Stage,
    current_attempt,
    failed,
)
from chicory.suspects import deliveries_so_far

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Mapping, Sequence

    from chicory.config import WorkerConfig
    from chicory.home import Home
    from chicory.message import Delivery
    from chicory.offers import ChildContext
    from chicory.processes import ChildProcess, ProcessPool
    from chicory.serializer import Serializer
    from chicory.task import Task, TaskRegistry
    from chicory.threads import ThreadPool

__all__ = ["CORE_LAYERS", "UNKNOWN_SINCE", "Execution", "Notes"]

INNERMOST = 1000
"""Inside of every layer that a plugin can add."""
CORE_LAYERS = {
    "unknown_task": Stage.RECOVER,
    "admit": Stage.ADMIT,
    "decode": Stage.DECODE,
    "call": INNERMOST,
}
"""The core's own layers: methods of `Execution` by name, and their stages."""

UNKNOWN_SINCE = "unknown_since"
"""Header of a message whose task no worker knew yet: since when."""
_FIRST_DEFER, _LONGEST_DEFER = 0.5, 30.0
_DEFER_AGAIN = 0.25
"""Part of the time so far: beside one worker that knows a task, many may not, and each try may come to one of those."""
_CANCEL_GRACE = 5.0
"""Seconds that a task which ran over its timeout gets to react to being cancelled, before it is left behind."""


class Notes(Protocol):
    """Where an execution says what is true before it ends."""

    def started(self, attempt: Attempt) -> None:
        """The task runs. Costs no round trip of its own if it ends soon."""
        ...

    def progressed(self, attempt: Attempt) -> None:
        """``attempt.progress`` has changed."""
        ...

    async def give_up_first(self, attempt: Attempt) -> bool:
        """Settle an at-most-once delivery before its one run; False if it is not ours to run."""
        ...


@final
class Execution:
    """The core's layers around every attempt of one worker."""

    def __init__(
        self,
        *,
        app: Any,
        tasks: TaskRegistry,
        worker_id: str,
        clock: Clock,
        config: WorkerConfig,
        serializers: Mapping[str, Serializer],
        written_with: Serializer,
        max_bytes: int,
        keeps_results: bool,
        threads: ThreadPool,
        processes: ProcessPool,
        notes: Notes,
        child_contexts: Sequence[ChildContext] = (),
    ) -> None:
        self._app = app
        self._tasks = tasks
        self._worker_id = worker_id
        self._clock = clock
        self._config = config
        self._serializers = serializers
        self._written_with = written_with
        self._max_bytes = max_bytes
        self._keeps_results = keeps_results
        self._threads = threads
        self._processes = processes
        self._notes = notes
        self._child_contexts = child_contexts
        self._log = get_logger("execution", worker_id=worker_id)

    def layers(self) -> list[ExecuteMiddleware]:
        """The core's layers, to be sorted in among those of the plugins."""
        return [ExecuteMiddleware(stage=stage, name=name, layer=getattr(self, name)) for name, stage in CORE_LAYERS.items()]

    def open(self, delivery: Delivery) -> Attempt:
        """The attempt at *delivery*: its document read and its task looked up, or the problem with either."""
        attempt = Attempt(delivery=delivery, worker_id=self._worker_id, config=self._config)
        try:
            attempt.document = document = read(delivery.envelope, limit=self._max_bytes)
            attempt.message = document.message()
            attempt.task = self._tasks.find(document.task)
        except (MessageDecodeError, TaskNotFoundError) as problem:
            attempt.problem = problem
        return attempt

    # --- layers, from the outside to the inside --------------------------------------------------

    async def unknown_task(self, attempt: Attempt, proceed: Next) -> Outcome:
        """Put a message whose task is unknown back, for a worker that knows it: a rolling deploy. Fail it after a while."""
        outcome = await proceed(attempt)
        if outcome.error is not attempt.problem or not isinstance(outcome.error, TaskNotFoundError):
            return outcome
        headers = attempt.message.headers if attempt.message else {}
        now = self._clock.now()
        since = _moment(headers.get(UNKNOWN_SINCE)) or now
        elapsed = (now - since).total_seconds()
        if elapsed >= self._config.unknown_task_seconds:
            return Outcome(error=outcome.error, final=True, decision=Decision.REJECT, reason="unknown_task")
        self._log.warning("unknown_task_put_back", task=attempt.task_name, task_id=attempt.delivery.envelope.id)
        return Outcome(
            error=outcome.error,
            decision=Decision.DEFER,
            delay=min(max(elapsed * _DEFER_AGAIN, _FIRST_DEFER), _LONGEST_DEFER),
            reason="unknown_task",
            changes={"headers": {**headers, UNKNOWN_SINCE: since.isoformat()}},
        )

    async def admit(self, attempt: Attempt, proceed: Next) -> Outcome:
        """Refuse what has ended before, was delivered too often, or comes too late."""
        if attempt.ended is not None:
            return attempt.ended
        headers = attempt.message.headers if attempt.message else {}
        count, limit = deliveries_so_far(attempt.delivery, headers), self._config.max_deliveries
        if count > limit:
            return Outcome(
                error=DeliveryLimitError(count, limit), final=True, decision=Decision.REJECT, reason="delivery_limit"
            )
        return self._too_late(attempt) or await proceed(attempt)

    async def decode(self, attempt: Attempt, proceed: Next) -> Outcome:
        """Decode and validate the arguments; what cannot be decoded never will be."""
        if attempt.problem is not None or attempt.task is None or attempt.document is None:
            is_unreadable = isinstance(attempt.problem, MessageDecodeError)
            return Outcome(
                error=attempt.problem,
                final=True,
                decision=Decision.REJECT if is_unreadable else Decision.DONE,
                reason="unreadable" if is_unreadable else None,
            )
        try:
            arguments = attempt.document.argument_bytes()
            attempt.args, attempt.kwargs = decoded(attempt.task, arguments, self._serializers)
        except (ValidationError, EncodingError) as error:
            return Outcome(error=error, final=True, decision=Decision.REJECT, reason="validation")
        return await proceed(attempt)

    def call(self, attempt: Attempt, _proceed: Next) -> Coroutine[Any, Any, Outcome]:
        """Call the function, within its time, and encode what it returns."""
        task = attempt.task
        assert task is not None, "the decode layer passes on no attempt without task"  # noqa: S101
        # Not awaited here: that would be one more coroutine for each task.
        return self._call(attempt, task, None) if task.home is None else self._call_in_child(attempt, task, task.home)

    async def _call_in_child(self, attempt: Attempt, task: Task[..., Any], home: Home) -> Outcome:
        async with self._processes.child(home) as child:  # until it is ours, the task has not started
            return self._too_late(attempt) or await self._call(attempt, task, child)

    async def _call(self, attempt: Attempt, task: Task[..., Any], child: ChildProcess | None) -> Outcome:
        attempt.started_at = self._clock.now()
        if task.options_of_task.delivery_mode is DeliveryMode.AT_MOST_ONCE:
            attempt.settled = await self._notes.give_up_first(attempt)
            if not attempt.settled:
                return failed(LeaseLost(attempt.delivery.envelope.id), final=True)
        else:
            self._notes.started(attempt)
        current_attempt.set(attempt)
        reach(FaultPoint.BEFORE_RUN)
        try:
            return await (self._here(attempt, task) if child is None else self._in_process(attempt, task, child))
        except FinalError as error:
            return failed(error.__cause__ or error, final=True)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge of user code: all of it is the task's failure
            return failed(error)
        finally:
            reach(FaultPoint.AFTER_RUN)

    # --- steps -----------------------------------------------------------------------------------

    def _too_late(self, attempt: Attempt) -> Outcome | None:
        message = attempt.message
        if message is None or message.expires is None or message.expires > self._clock.now():
            return None
        error = TaskExpiredError(message.name, message.expires.isoformat())
        return Outcome(error=error, final=True, decision=Decision.REJECT, reason="expired", state=TaskState.EXPIRED)

    async def _here(self, attempt: Attempt, task: Task[..., Any]) -> Outcome:
        timeout = task.options_of_task.timeout
        args = attempt.args
        if task.signature.takes_context:
            args = [self._context(attempt, task), *args]
        if task.options_of_task.execution == "async":
            running = task.function(*args, **attempt.kwargs)
            value = await running if timeout is None else await self._limited(running, task, timeout)
        else:
            value = await self._in_thread(partial(task.function, *args, **attempt.kwargs), task, timeout)
        return self._encoded(task, value)

    def _context(self, attempt: Attempt, task: Task[..., Any]) -> TaskContext:
        home = asyncio.get_running_loop()

        async def report(done: float, total: float) -> None:
            if asyncio.get_running_loop() is home:
                self._progress(attempt, done, total)
            else:  # a sync task says it from the portal thread
                home.call_soon_threadsafe(self._progress, attempt, done, total)

        assert attempt.message is not None, "a task is only found for a message that could be read"  # noqa: S101
        return TaskContext(
            attempt.message, app=self._app, max_retries=max_retries_of(task), deadline=self._deadline(task), report=report
        )

    def _progress(self, attempt: Attempt, done: float, total: float) -> None:
        attempt.progress = (done, total)
        self._notes.progressed(attempt)

    def _deadline(self, task: Task[..., Any]) -> datetime | None:
        timeout = task.options_of_task.timeout
        return None if timeout is None else self._clock.now() + timedelta(seconds=timeout)

    async def _limited(self, running: Awaitable[Any], task: Task[..., Any], timeout: float) -> Any:
        """Wait for an async task at most *timeout* seconds; one that will not be cancelled is left behind."""
        runner = asyncio.ensure_future(running)
        try:
            await within(self._clock, timeout, asyncio.wait([runner]))
        except TimeoutError:
            await self._stop(runner, task)
            raise TaskTimeoutError(task.name, timeout) from None
        except asyncio.CancelledError:
            await self._stop(runner, task)
            raise
        return runner.result()

    async def _stop(self, runner: asyncio.Future[Any], task: Task[..., Any]) -> None:
        runner.cancel()
        try:
            await within(self._clock, _CANCEL_GRACE, asyncio.wait([runner]))
        except TimeoutError:
            self._log.error("task_ignores_cancellation", task=task.name)
        if runner.done() and not runner.cancelled():
            runner.exception()  # retrieved: what a cancelled task still raised is not news

    async def _in_thread(self, function: partial[Any], task: Task[..., Any], timeout: float | None) -> Any:
        future = self._threads.submit(function)
        try:
            return await within(self._clock, timeout, future)
        except TimeoutError:
            if timeout is None or not future.cancelled():
                raise  # the task's own
            self._threads.abandon(future)
            self._log.error("thread_left_behind", task=task.name, abandoned=len(self._threads.abandoned))
            raise TaskTimeoutError(task.name, timeout) from None

    async def _in_process(self, attempt: Attempt, task: Task[..., Any], child: ChildProcess) -> Outcome:
        """Run the task in *child*, which dies if that takes too long or is cancelled."""
        assert attempt.message is not None, "a task is only found for a message that could be read"  # noqa: S101
        order = Run(
            task=task.name,
            delivery=attempt.delivery,
            headers=attempt.message.headers,
            started_at=attempt.started_at,
            deadline=self._deadline(task),
            keeps_results=self._keeps_results,
            carried={context.name: context.pack() for context in self._child_contexts},
        )
        timeout = task.options_of_task.timeout
        try:
            answer = await within(self._clock, timeout, child.run(order, partial(self._progress, attempt)))
        except TimeoutError:
            if timeout is None:
                raise
            raise TaskTimeoutError(task.name, timeout) from None
        if isinstance(answer, Returned):
            return Outcome(result=answer.result)
        error = answer.exception()
        if isinstance(error, RetryError):
            raise error  # to have the worker's part of its traceback too
        return failed(error, final=answer.is_final)

    def _encoded(self, task: Task[..., Any], value: Any) -> Outcome:
        try:
            result = encoded(
                task,
                value,
                serializer=self._written_with,
                max_bytes=self._max_bytes,
                keeps_results=self._keeps_results,
            )
        except (ValidationError, EncodingError) as error:
            return failed(error, final=True)  # running it again would return the same
        return Outcome(value=value, result=result)


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
