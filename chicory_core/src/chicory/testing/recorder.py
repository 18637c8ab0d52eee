"""What an app does under test, written down: a plugin that the test kit adds for the time of one test."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn, final

from msgspec import Struct
from msgspec.structs import replace

from chicory.execution import INNERMOST
from chicory.hookspecs import hookimpl
from chicory.memory_store import SETTLED
from chicory.middleware import ExecuteMiddleware, PublishMiddleware, current_attempt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from chicory.memory_store import MemoryStore
    from chicory.message import TaskMessage
    from chicory.middleware import Attempt, Next, Outcome, PublishNext
    from chicory.task import Task

__all__ = ["Failure", "Probe", "Recorder", "Sent", "stand_in"]

OUTERMOST = 0
"""Outside of every layer that a plugin adds: it sees what they made of a failure."""


@final
class Failure(Struct, frozen=True, kw_only=True):
    """A task that has failed for good: after its last retry, or because none was left to it."""

    task: str
    task_id: str
    error: BaseException


@final
class Sent(Struct, frozen=True, kw_only=True):
    """A message that was sent, and whether a task sent it or the test."""

    message: TaskMessage
    is_by_a_task: bool


class Probe:
    """What stands between the worker and the functions of tasks: nothing, unless a subclass says otherwise."""

    @property
    def is_dead(self) -> bool:
        """The process that works is to be counted as dead."""
        return False

    def watching(self, loop: asyncio.AbstractEventLoop) -> AbstractContextManager[None]:
        """Held while a worker works on *loop*."""
        return nullcontext()

    async def around(self, attempt: Attempt, proceed: Next) -> Outcome:
        """Call the task: next to the call itself."""
        return await proceed(attempt)

    async def restart(self) -> None:
        """The dead process has been cleared away; another may begin."""


class _Plan:
    """Errors that a task is to raise instead of running."""

    def __init__(self, error: BaseException | type[BaseException], times: int | None) -> None:
        self.error, self.left = error, times

    def take(self) -> bool:
        if self.left is not None:
            self.left -= 1
        return self.left is None or self.left >= 0


@final
class Recorder:
    """Keeps what was sent, what runs and what failed, and lets tasks fail on demand."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.probe = Probe()
        self.sent: list[Sent] = []
        self.failures: list[Failure] = []
        self.runs: Counter[str] = Counter()
        """How often each task has started."""
        self.running: Counter[str] = Counter()
        self._plans: defaultdict[str, list[_Plan]] = defaultdict(list)

    def fail(self, task: str, error: BaseException | type[BaseException], times: int | None) -> None:
        """Let the next *times* runs of *task* (None: all) raise *error*; after what was asked for before."""
        self._plans[task].append(_Plan(error, times))

    # --- what chicory asks a plugin for ----------------------------------------------------------

    @hookimpl
    def chicory_publish_middleware(self) -> list[PublishMiddleware]:
        return [PublishMiddleware(stage=INNERMOST, name="testkit", layer=self._published)]

    @hookimpl
    def chicory_execute_middleware(self) -> list[ExecuteMiddleware]:
        return [
            ExecuteMiddleware(stage=OUTERMOST, name="testkit", layer=self._outside),
            ExecuteMiddleware(stage=INNERMOST - 1, name="testkit", layer=self._inside),
        ]

    # --- layers ----------------------------------------------------------------------------------

    async def _published(self, messages: Sequence[TaskMessage], proceed: PublishNext) -> None:
        is_by_a_task = current_attempt.get() is not None
        made = [Sent(message=message, is_by_a_task=is_by_a_task) for message in messages]
        self.sent += made  # before it happens: who dies on the way has sent it, to be on the safe side
        try:
            await proceed(messages)
        except BaseException:
            self.sent = [sent for sent in self.sent if not any(sent is one for one in made)]
            raise

    async def _outside(self, attempt: Attempt, proceed: Next) -> Outcome:
        task = attempt.task_name
        self.runs[task] += 1
        self.running[task] += 1
        try:
            outcome = await proceed(attempt)
        finally:
            self.running[task] -= 1
            with self._store.lock:
                self._store.wakeups.wake(SETTLED)  # an at-most-once task is settled long before it ends
        if outcome.has_failed and outcome.error is not None:
            self.failures.append(Failure(task=task, task_id=attempt.delivery.envelope.id, error=outcome.error))
        return outcome

    async def _inside(self, attempt: Attempt, proceed: Next) -> Outcome:
        if attempt.task is not None:
            attempt.task = self._prepared(attempt.task)
        return await self.probe.around(attempt, proceed)

    def _prepared(self, task: Task[..., Any]) -> Task[..., Any]:
        """*task* as it is to run here and now."""
        plan = next((plan for plan in self._plans[task.name] if plan.take()), None)
        options = task.options_of_task
        is_process = options.execution == "process"  # a child process would import the app as it is in production
        if plan is None and not is_process:
            return task
        function = task.function if plan is None else _raising(plan.error, is_async=options.execution == "async")
        prepared = stand_in(task, function)
        if is_process:
            prepared.options_of_task = replace(options, execution="thread")
        return prepared


def stand_in(task: Task[..., Any], function: Callable[..., Any]) -> Task[..., Any]:
    """*task* with another function, for one run; the registered one stays as it is."""
    other = copy.copy(task)
    other.function = function
    return other


def _raising(error: BaseException | type[BaseException], *, is_async: bool) -> Callable[..., Any]:
    """A function that raises *error* in place of a task's own."""

    def fail(*_args: object, **_kwargs: object) -> NoReturn:
        raise error() if isinstance(error, type) else error.with_traceback(None)

    def fail_later(*args: object, **kwargs: object) -> Awaitable[NoReturn]:
        async def failing() -> NoReturn:
            fail(*args, **kwargs)

        return failing()

    return fail_later if is_async else fail
