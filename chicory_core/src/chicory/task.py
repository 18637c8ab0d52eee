"""Tasks: registered functions with their options, and the ways to call them."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, final

from msgspec import Struct

from chicory.codec import Arguments
from chicory.context import TaskContext
from chicory.errors import DuplicateTaskError, TaskDefinitionError, TaskNotFoundError
from chicory.home import home_of
from chicory.message import TaskMessage
from chicory.options import NO_OPTIONS, CallOptions, TaskOptions, message_for, place_of
from chicory.result import AsyncResult
from chicory.signature import Signature, Unresolved

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from chicory.clock import Clock
    from chicory.result import ResultSource
    from chicory.serializer import Serializer

__all__ = ["AsyncTask", "Call", "Sender", "SyncTask", "Task", "TaskCall", "TaskRegistry"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


@final
class Call(Struct, frozen=True, kw_only=True, gc=False):
    """A message on its way out, its arguments checked and written already."""

    message: TaskMessage
    arguments: Arguments


class Sender(Protocol):
    """What a task needs of its app."""

    @property
    def clock(self) -> Clock: ...
    @property
    def serializer(self) -> Serializer: ...
    @property
    def results(self) -> ResultSource | None: ...
    async def send(self, calls: Sequence[Call]) -> None:
        """Hand *calls* to the broker; durable once it returns."""
        ...

    def run_sync(self, coroutine: Coroutine[Any, Any, T], *, blocking: str, instead: str) -> T:
        """Run *coroutine* on the portal thread; raises ``SyncCallError`` where that would stop a running loop."""
        ...

    def owner(self) -> Any:
        """The app itself, for ``ctx.app``."""
        ...


class Task(Generic[P, R]):
    """A registered function. Still callable: ``await send_mail(...)`` or ``add(1, 2)`` runs it here and now.

    The calls of one event loop that wait at the same time travel to the broker together.
    """

    def __init__(self, function: Callable[..., Any], options: TaskOptions, sender: Sender, names: Mapping[str, Any]) -> None:
        self.function = function
        self.options_of_task = options
        self._sender = sender
        self._names = names
        self.home = home_of(options.name, function, names) if options.execution == "process" else None
        """Where a child process imports it from; None if it runs in the worker itself."""
        self._signature: Signature | None = None
        self.__doc__ = function.__doc__
        self.__name__ = getattr(function, "__name__", options.name)
        self.__wrapped__ = function
        with suppress(Unresolved):  # an annotation may name what is defined later: looked at again at the first call
            self._signature = self._build()

    def __repr__(self) -> str:
        return f"<task {self.name!r} at {self.place}>"

    @property
    def name(self) -> str:
        return self.options_of_task.name

    @property
    def app(self) -> Any:
        """The app that it belongs to."""
        return self._sender.owner()

    @property
    def place(self) -> str:
        """``file:line`` of the function."""
        return place_of(self.function)

    @property
    def signature(self) -> Signature:
        """What it takes and gives.

        Raises:
            TaskDefinitionError: an annotation names something that is not defined.
        """
        if self._signature is None:
            try:
                self._signature = self._build()
            except Unresolved as error:
                hint = "a type must be importable at run time, not only under TYPE_CHECKING"
                raise TaskDefinitionError(self.name, f"{error}; {hint}") from error
        return self._signature

    def _build(self) -> Signature:
        signature = Signature(self.name, self.function, TaskContext, self._names)
        self._names = {}  # the locals of the function that registered it are not kept alive any longer
        return signature

    # --- calling -------------------------------------------------------------------------------

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send one call; the handle is its future result. The call is durable once this returns.

        Raises:
            ValidationError: the arguments do not fit; nothing was sent.
            BrokerConnectionError: the broker did not answer; it may or may not have the call.
        """
        call = self.call(NO_OPTIONS, args, kwargs)
        await self._sender.send((call,))
        return AsyncResult(call.message.id, self._sender.results, ours=True)

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """`delay` without the handle: the task id."""
        call = self.call(NO_OPTIONS, args, kwargs)
        await self._sender.send((call,))
        return call.message.id

    async def delay_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[AsyncResult[R]]:
        """Send many calls, each a sequence of arguments or a mapping of named ones, in as few round trips as possible."""
        return await self.options().delay_many(calls)

    def delay_sync(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """`delay` for code without event loop; raises ``SyncCallError`` on a thread where one runs."""
        instead = f"await {self.__name__}.delay(...)"
        return self._sender.run_sync(self.delay(*args, **kwargs), blocking="delay_sync()", instead=instead)

    def options(
        self,
        *,
        queue: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        priority: int | None = None,
        expires: float | datetime | None = None,
        task_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> TaskCall[P, R]:
        """This task with other options for the calls made through what is returned.

        *countdown* (seconds from now) or *eta* (an aware datetime) delay the start; *expires* (seconds from now, or a moment)
        is when it may not start any more; *priority* runs from 0 to 9, 9 first.

        Raises:
            ValueError: an option does not make sense; the text says which and why.
        """
        options = CallOptions(
            queue=queue, countdown=countdown, eta=eta, priority=priority, expires=expires, task_id=task_id, headers=headers
        )
        return TaskCall(self, options)

    def call(self, options: CallOptions, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
        """A call of this task, checked and written."""
        task, sender = self.options_of_task, self._sender
        arguments = self.signature.encode(args, kwargs, check=task.validation_mode.checks_inputs, serializer=sender.serializer)
        now = sender.clock.now()
        if options is NO_OPTIONS:
            message = TaskMessage(
                name=task.name,
                args=args,  # type: ignore[arg-type] # a tuple of *args
                kwargs=kwargs,  # type: ignore[arg-type] # a dict of **kwargs
                queue=task.queue,
                priority=task.priority,
                expires=None if task.expires is None else now + timedelta(seconds=task.expires),
                enqueued_at=now,
            )
        else:
            message = message_for(task, options, args, kwargs, now)
        return Call(message=message, arguments=arguments)

    def _call_here(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run the function itself, with a context of its own if it asks for one."""
        if not self.signature.takes_context:
            return self.function(*args, **kwargs)
        message = TaskMessage(name=self.name, queue=self.options_of_task.queue)
        policy = self.options_of_task.retry_policy
        context = TaskContext(message, app=self._sender.owner(), max_retries=policy.max_retries if policy else 0)
        return self.function(context, *args, **kwargs)


@final
class AsyncTask(Task[P, R]):
    """A task made from an ``async def``."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, here and now."""
        result: R = await self._call_here(args, kwargs)
        return result


@final
class SyncTask(Task[P, R]):
    """A task made from a plain function; workers run it in a thread or a child process."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function itself, here and now."""
        result: R = self._call_here(args, kwargs)
        return result


@final
class TaskCall(Generic[P, R]):
    """A task with other options for its calls: ``task.options(...)``."""

    def __init__(self, task: Task[P, R], options: CallOptions) -> None:
        self._task = task
        self._options = options

    def __repr__(self) -> str:
        return f"<{self._task!r} with {self._options!r}>"

    async def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """As ``Task.delay``."""
        task_id = await self.send(*args, **kwargs)
        return AsyncResult(task_id, self._task._sender.results, ours=True)  # noqa: SLF001 - one class in two parts

    async def send(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """As ``Task.send``."""
        call = self._task.call(self._options, args, kwargs)
        await self._task._sender.send((call,))  # noqa: SLF001
        return call.message.id

    async def delay_many(self, calls: Iterable[Sequence[Any] | Mapping[str, Any]]) -> list[AsyncResult[R]]:
        """As ``Task.delay_many``.

        Raises:
            ValueError: a ``task_id`` was set, which only one call can have.
        """
        if self._options.task_id is not None:
            raise ValueError(f"task_id={self._options.task_id!r} cannot be shared by many calls: use delay() for each")
        options = self._options if self._options != CallOptions() else NO_OPTIONS
        made = [self._task.call(options, *_split(call)) for call in calls]
        sender = self._task._sender  # noqa: SLF001
        if made:
            await sender.send(made)
        return [AsyncResult(call.message.id, sender.results, ours=True) for call in made]

    def delay_sync(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """As ``Task.delay_sync``."""
        instead = f"await {self._task.__name__}.options(...).delay(...)"
        sender = self._task._sender  # noqa: SLF001
        return sender.run_sync(self.delay(*args, **kwargs), blocking="delay_sync()", instead=instead)


@final
class TaskRegistry(Mapping[str, Task[..., Any]]):
    """The tasks of an app by name: to read. `add` is how the app registers one."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def __getitem__(self, name: str) -> Task[..., Any]:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: Task[..., Any]) -> None:
        """Register *task*.

        Raises:
            DuplicateTaskError: another function has its name; both places are in the text.
        """
        if (first := self._tasks.get(task.name)) is not None:
            raise DuplicateTaskError(task.name, first.place, task.place)
        self._tasks[task.name] = task

    def find(self, name: str) -> Task[..., Any]:
        """The task of that name.

        Raises:
            TaskNotFoundError: there is none; the nearest name is in the text.
        """
        try:
            return self._tasks[name]
        except KeyError:
            raise TaskNotFoundError(name, tuple(self._tasks)) from None


def _split(call: Sequence[Any] | Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
    if isinstance(call, Mapping):
        return (), call
    if isinstance(call, (str, bytes)):
        raise TypeError(f"each call is a sequence of arguments: write ({call!r},), not {call!r}")
    return call, {}
