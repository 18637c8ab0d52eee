"""The options of tasks and calls: checked once, when a task is registered or a call is configured."""

from __future__ import annotations

import inspect
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct, field
from msgspec.structs import replace

from chicory.errors import TaskDefinitionError
from chicory.home import import_name
from chicory.message import DEFAULT_QUEUE, DeliveryMode, TaskMessage, ValidationMode, new_id
from chicory.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["NO_OPTIONS", "CallOptions", "TaskOptions", "message_for", "options_for", "place_of"]

_NAME = re.compile(r"[A-Za-z0-9_.:<>-]{1,200}")
_QUEUE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_ID = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")
_PRIORITIES = range(10)
_EXECUTIONS = ("async", "thread", "process")


@final
class TaskOptions(Struct, frozen=True, kw_only=True):
    """What ``@app.task(...)`` takes.

    ``timeout`` and ``expires`` are seconds; ``execution`` is how a sync function runs (``thread`` or ``process``), and
    ``async`` for async ones. None means: as the app says. ``extra`` holds the options of plugins.
    """

    name: str
    queue: str = DEFAULT_QUEUE
    retry_policy: RetryPolicy | None = None
    timeout: float | None = None
    priority: int = 0
    expires: float | None = None
    delivery_mode: DeliveryMode = DeliveryMode.AT_LEAST_ONCE
    validation_mode: ValidationMode = ValidationMode.INPUTS
    ignore_result: bool = False
    execution: str = "async"
    extra: dict[str, Any] = field(default_factory=dict)


@final
class CallOptions(Struct, frozen=True, kw_only=True):
    """What ``task.options(...)`` takes; None means: as the task says."""

    queue: str | None = None
    countdown: float | None = None
    eta: datetime | None = None
    priority: int | None = None
    expires: float | datetime | None = None
    task_id: str | None = None
    headers: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.task_id is not None:
            check_id(self.task_id)
        if self.queue is not None:
            check_queue(self.queue)
        if self.priority is not None:
            check_priority(self.priority)
        if self.countdown is not None and self.eta is not None:
            raise ValueError("give countdown (seconds from now) or eta (a moment), not both")
        if self.countdown is not None and self.countdown < 0:
            raise ValueError(f"countdown must be 0 or more seconds, not {self.countdown!r}")
        for name, moment in (("eta", self.eta), ("expires", self.expires)):
            if isinstance(moment, datetime) and moment.tzinfo is None:
                raise ValueError(f"{name} must be an aware datetime, and {moment!r} has no time zone: add tzinfo=UTC")


NO_OPTIONS = CallOptions()


def message_for(
    task: TaskOptions, options: CallOptions, args: Sequence[Any], kwargs: Mapping[str, Any], now: datetime
) -> TaskMessage:
    """The message of one call of *task* with *options*, made at *now*."""
    eta = options.eta.astimezone(UTC) if options.eta is not None else None
    if options.countdown is not None:
        eta = now + timedelta(seconds=options.countdown)
    expires = options.expires if options.expires is not None else task.expires
    if isinstance(expires, datetime):
        expires_at: datetime | None = expires.astimezone(UTC)
    else:
        expires_at = None if expires is None else now + timedelta(seconds=expires)
    return TaskMessage(
        id=options.task_id or new_id(),
        name=task.name,
        args=tuple(args),
        kwargs=dict(kwargs),
        queue=options.queue or task.queue,
        eta=eta,
        priority=task.priority if options.priority is None else options.priority,
        expires=expires_at,
        headers=dict(options.headers or {}),
        enqueued_at=now,
    )


def options_for(function: Callable[..., Any], defaults: TaskOptions, given: Mapping[str, Any]) -> TaskOptions:
    """The options of a task: *given* where not None, else *defaults*; checked against each other.

    Raises:
        TaskDefinitionError: two options exclude each other, or a value makes no sense.
    """
    name = given.get("name") or default_name(function)
    chosen = {key: value for key, value in given.items() if value is not None}
    is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
    execution = chosen.setdefault("execution", "async" if is_async else "thread")
    try:
        options = replace(defaults, **{**chosen, "name": name})
        _check(options, is_async=is_async, execution=execution)
    except ValueError as error:
        raise TaskDefinitionError(name, str(error)) from error
    return options


def _check(options: TaskOptions, *, is_async: bool, execution: str) -> None:
    if not _NAME.fullmatch(options.name):
        raise ValueError("a name has 1 to 200 letters, digits, and . _ : - < >; pass name=...")
    check_queue(options.queue)
    check_priority(options.priority)
    for field_name in ("timeout", "expires"):
        value = getattr(options, field_name)
        if value is not None and value <= 0:
            raise ValueError(f"{field_name} must be more than 0 seconds, not {value!r}")
    if execution not in _EXECUTIONS:
        raise ValueError(f"execution must be one of {', '.join(_EXECUTIONS)}, not {execution!r}")
    if is_async != (execution == "async"):
        kind = "an async function runs on the event loop" if is_async else "a sync function runs in a thread or a process"
        raise ValueError(f"{kind}, not with execution={execution!r}")
    if options.delivery_mode is DeliveryMode.AT_MOST_ONCE and options.retry_policy is not None:
        raise ValueError("a task that runs at most once is never retried: drop its retry_policy, or its delivery_mode")


def default_name(function: Callable[..., Any]) -> str:
    """``module.function``, right also in a script: the module name that ``-m`` or importing its file would give."""
    function = inspect.unwrap(function)
    return f"{import_name(function.__module__)}.{function.__qualname__}"


def place_of(function: Callable[..., Any]) -> str:
    """``file:line`` of a function."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)


def check_queue(queue: str) -> None:
    """Raise ``ValueError`` unless *queue* can be the name of a queue on every broker."""
    if not _QUEUE.fullmatch(queue):
        raise ValueError(f"a queue name has 1 to 100 letters, digits, and . _ : -, which {queue!r} is not")


def check_id(task_id: str) -> None:
    """Raise ``ValueError`` unless *task_id* can be the id of a message on every broker."""
    if not _ID.fullmatch(task_id):
        raise ValueError(f"a task id has 1 to 200 printable characters without spaces, which {task_id!r} has not")


def check_priority(priority: int) -> None:
    """Raise ``ValueError`` unless *priority* is a whole number from 0 to 9."""
    if type(priority) is not int or priority not in _PRIORITIES:
        raise ValueError(f"priority must be a whole number from 0 to 9, not {priority!r}")
