"""Every exception of chicory. Facts are attributes (and the ``args``, so errors survive copy and pickle).

::

    ChicoryError
    ├── ConfigurationError
    │   ├── BackendNotConfiguredError
    │   ├── CapabilityError
    │   └── PluginError
    │       ├── PluginNotFoundError
    │       ├── PluginBrokenError
    │       └── PluginConflictError
    ├── TaskDefinitionError
    │   └── DuplicateTaskError
    ├── TaskNotFoundError
    ├── ValidationError            (also ValueError)
    ├── EncodingError
    │   ├── MessageDecodeError
    │   └── PayloadTooLargeError
    ├── BrokerError
    │   ├── BrokerConnectionError  (also ConnectionError)
    │   └── BrokerFullError
    ├── BackendError
    │   └── BackendConnectionError (also ConnectionError)
    ├── ResultError
    │   ├── TaskFailedError
    │   ├── ResultNotFoundError
    │   └── ResultIgnoredError
    ├── AttemptError               what ends or postpones one try of a task
    │   ├── RetryError
    │   ├── FinalError
    │   ├── MaxRetriesExceededError
    │   ├── TaskTimeoutError       (also TimeoutError)
    │   ├── TaskExpiredError
    │   ├── DeliveryLimitError
    │   ├── LeaseLost
    │   ├── WorkerLost
    │   ├── ProcessStartError
    │   ├── ProcessDiedError
    │   └── RemoteError
    ├── ThreadsExhaustedError
    ├── SyncCallError              (also RuntimeError)
    └── NotIdleError               what the test kit raises
"""

from __future__ import annotations

import signal
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, final

__all__ = [
    "AttemptError",
    "BackendConnectionError",
    "BackendError",
    "BackendNotConfiguredError",
    "BrokerConnectionError",
    "BrokerError",
    "BrokerFullError",
    "CapabilityError",
    "ChicoryError",
    "ConfigurationError",
    "DeliveryLimitError",
    "DuplicateTaskError",
    "EncodingError",
    "FinalError",
    "LeaseLost",
    "MaxRetriesExceededError",
    "MessageDecodeError",
    "NotIdleError",
    "PayloadTooLargeError",
    "PluginBrokenError",
    "PluginConflictError",
    "PluginError",
    "PluginNotFoundError",
    "ProcessDiedError",
    "ProcessStartError",
    "RemoteError",
    "ResultError",
    "ResultIgnoredError",
    "ResultNotFoundError",
    "RetryError",
    "SyncCallError",
    "TaskDefinitionError",
    "TaskExpiredError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskTimeoutError",
    "ThreadsExhaustedError",
    "ValidationError",
    "WorkerLost",
    "nearest",
]


def nearest(name: str, known: tuple[str, ...]) -> str | None:
    """The known name most like *name*, or None if none is near."""
    return next(iter(get_close_matches(name, known, n=1)), None)


class ChicoryError(Exception):
    """The root: catch it to catch everything chicory raises itself."""


# --- configuration and plugins -----------------------------------------------------------------


class ConfigurationError(ChicoryError):
    """What was configured cannot work; the text names the setting and what to do."""


@final
class BackendNotConfiguredError(ConfigurationError):
    """A result was asked for, and the app keeps none."""

    def __str__(self) -> str:
        return "this app has no result backend: pass backend=..., or set CHICORY_BACKEND_URL"


@final
class CapabilityError(ConfigurationError):
    """A broker or backend does not offer what was asked of it."""

    def __init__(self, what: str, offered_by: str, hint: str) -> None:
        super().__init__(what, offered_by, hint)
        self.what, self.offered_by, self.hint = what, offered_by, hint

    def __str__(self) -> str:
        return f"{self.offered_by} does not offer {self.what}: {self.hint}"


class PluginError(ConfigurationError):
    """A plugin is missing, broken, or in conflict with another."""


@final
class PluginNotFoundError(PluginError):
    """Nobody installed, and not blocked, offers this name."""

    def __init__(
        self, kind: str, name: str, known: tuple[str, ...], install: str | None = None, blocked: str | None = None
    ) -> None:
        super().__init__(kind, name, known, install, blocked)
        self.kind, self.name, self.known, self.install, self.blocked = kind, name, known, install, blocked

    def __str__(self) -> str:
        if self.kind == "plugin":
            what = f"no plugin {self.name!r} is installed"
        else:
            what = f"no installed plugin offers the {self.kind} {self.name!r}"
        if self.blocked:
            return f"{what} and is not blocked: take back {self.blocked}"
        if self.install:
            return f"{what}: run `pip install {self.install}`"
        near = nearest(self.name, self.known)
        return f"{what}: " + (f"did you mean {near!r}?" if near else f"installed are {', '.join(self.known) or 'none'}")


@final
class PluginBrokenError(PluginError):
    """A plugin that was asked for cannot be loaded."""

    def __init__(self, name: str, distribution: str, cause: str) -> None:
        super().__init__(name, distribution, cause)
        self.name, self.distribution, self.cause = name, distribution, cause

    def __str__(self) -> str:
        return (
            f"plugin {self.name!r} ({self.distribution}) cannot be loaded: {self.cause}; "
            f"repair it, or block it with --plugin no:{self.name}"
        )


@final
class PluginConflictError(PluginError):
    """Two plugins offer the same name."""

    def __init__(self, kind: str, name: str, first: str, second: str) -> None:
        super().__init__(kind, name, first, second)
        self.kind, self.name, self.first, self.second = kind, name, first, second

    def __str__(self) -> str:
        both = f"{self.first} and {self.second} both offer the {self.kind} {self.name!r}"
        if self.kind in ("plugin", "configuration section"):
            return f"{both}: uninstall one of them"  # both are found by that name, so that blocking it would block both
        return f"{both}: block one of the plugins with --plugin no:NAME"


# --- tasks and their arguments -----------------------------------------------------------------


class TaskDefinitionError(ChicoryError):
    """A function cannot be registered as a task as it stands."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task, self.problem = task, problem

    def __str__(self) -> str:
        return f"task {self.task!r} cannot be registered: {self.problem}"


@final
class DuplicateTaskError(TaskDefinitionError):
    """Two functions want the same task name."""

    def __init__(self, task: str, first: str, second: str) -> None:
        super().__init__(task, f"it is defined at {first} and again at {second}; give one of them name=...")
        self.args = (task, first, second)
        self.first, self.second = first, second


@final
class TaskNotFoundError(ChicoryError):
    """A task name that is not registered here."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name, self.known = name, known

    def __str__(self) -> str:
        near = nearest(self.name, self.known)
        hint = f"did you mean {near!r}?" if near else "import its module before the worker starts"
        return f"task {self.name!r} is not registered here ({len(self.known)} are): {hint}"


@final
class ValidationError(ChicoryError, ValueError):
    """Arguments or a return value do not fit the task's annotations.

    ``problems`` holds (place, what is wrong) pairs, for instance ``("to", "field required")``. The values themselves are
    in neither: they may be secret.
    """

    def __init__(self, task: str, what: str, problems: tuple[tuple[str, str], ...]) -> None:
        super().__init__(task, what, problems)
        self.task, self.what, self.problems = task, what, problems

    def __str__(self) -> str:
        listed = "; ".join(f"{place}: {problem}" if place else problem for place, problem in self.problems)
        return f"{self.what} of task {self.task!r}: {listed}"


class EncodingError(ChicoryError):
    """A value cannot be turned into bytes, or bytes not into a value."""


@final
class MessageDecodeError(EncodingError):
    """The bytes of a message are not a document this version of chicory can read."""

    def __init__(self, message_id: str, problem: str) -> None:
        super().__init__(message_id, problem)
        self.message_id, self.problem = message_id, problem

    def __str__(self) -> str:
        return f"message {self.message_id!r} cannot be read: {self.problem}"


@final
class PayloadTooLargeError(EncodingError):
    """A message or a result is larger than the limit; nothing was sent."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what, self.size, self.limit = what, size, limit

    def __str__(self) -> str:
        return (
            f"{self.what} has {self.size} bytes, more than the {self.limit} allowed: "
            "pass a reference (a path, a key) instead of the data"
        )


# --- broker and backend ------------------------------------------------------------------------


class BrokerError(ChicoryError):
    """The broker refused, or failed."""


class BrokerConnectionError(BrokerError, ConnectionError):
    """The broker did not answer; what was asked of it may or may not have happened."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address, self.problem = address, problem

    def __str__(self) -> str:
        return f"broker {self.address} cannot be reached: {self.problem}"


@final
class BrokerFullError(BrokerError):
    """The broker has no room; nothing was stored."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address, self.problem = address, problem

    def __str__(self) -> str:
        return f"broker {self.address} has no room: {self.problem}"


class BackendError(ChicoryError):
    """The result backend refused, or failed."""


class BackendConnectionError(BackendError, ConnectionError):
    """The backend did not answer."""

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(address, problem)
        self.address, self.problem = address, problem

    def __str__(self) -> str:
        return f"backend {self.address} cannot be reached: {self.problem}"


# --- results -----------------------------------------------------------------------------------


class ResultError(ChicoryError):
    """A result cannot be had."""


@final
class TaskFailedError(ResultError):
    """The task ended in failure; this is its error as its worker saw it."""

    def __init__(
        self,
        task_id: str,
        task: str,
        state: str,
        error_type: str,
        error: str,
        remote_traceback: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(task_id, task, state, error_type, error, remote_traceback, reason)
        self.task_id, self.task, self.state, self.reason = task_id, task, state, reason
        self.error_type, self.error, self.remote_traceback = error_type, error, remote_traceback

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason and self.state == "DEAD_LETTERED" else ""
        return f"task {self.task!r} ({self.task_id}) ended as {self.state}{why} with {self.error_type}: {self.error}"


@final
class ResultNotFoundError(ResultError):
    """Nobody knows this task id: it never existed, was forgotten, or its result has expired."""

    def __init__(self, task_id: str, reason: str) -> None:
        super().__init__(task_id, reason)
        self.task_id, self.reason = task_id, reason

    def __str__(self) -> str:
        return f"no result for task id {self.task_id!r}: {self.reason}"


@final
class ResultIgnoredError(ResultError):
    """The task runs with ``ignore_result``: its state is kept, its value is not."""

    def __init__(self, task_id: str, task: str) -> None:
        super().__init__(task_id, task)
        self.task_id, self.task = task_id, task

    def __str__(self) -> str:
        return f"task {self.task!r} ({self.task_id}) ignores its result: use state(), or drop ignore_result=True"


# --- what ends or postpones one try ------------------------------------------------------------


class AttemptError(ChicoryError):
    """What ends or postpones one try of a task."""


@final
class RetryError(AttemptError):
    """Raised by ``ctx.retry()``: run this task again, after *countdown* seconds or as its policy says."""

    def __init__(self, countdown: float | None = None, cause: str | None = None) -> None:
        super().__init__(countdown, cause)
        self.countdown, self.cause = countdown, cause

    def __str__(self) -> str:
        when = "as its policy says" if self.countdown is None else f"in {self.countdown} s"
        return f"retry asked for, {when}" + (f": {self.cause}" if self.cause else "")


@final
class FinalError(AttemptError):
    """Raised by ``ctx.fail(exc)``: the task failed for good, whatever its retry policy says."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return self.cause


@final
class MaxRetriesExceededError(AttemptError):
    """A retry was asked for, and none is left."""

    def __init__(self, task: str, max_retries: int, cause: str | None = None) -> None:
        super().__init__(task, max_retries, cause)
        self.task, self.max_retries, self.cause = task, max_retries, cause

    def __str__(self) -> str:
        text = f"task {self.task!r} has no retry left (max_retries={self.max_retries})"
        return f"{text}: {self.cause}" if self.cause else text


@final
class TaskTimeoutError(AttemptError, TimeoutError):
    """The task ran longer than its ``timeout``."""

    def __init__(self, task: str, timeout: float) -> None:
        super().__init__(task, timeout)
        self.task, self.timeout = task, timeout

    def __str__(self) -> str:
        return f"task {self.task!r} ran longer than its timeout of {self.timeout} s"


@final
class TaskExpiredError(AttemptError):
    """The message was due to start before a moment that has passed; it was not run."""

    def __init__(self, task: str, expires: str) -> None:
        super().__init__(task, expires)
        self.task, self.expires = task, expires

    def __str__(self) -> str:
        return f"task {self.task!r} expired at {self.expires} before it started"


@final
class DeliveryLimitError(AttemptError):
    """The message was delivered too often and never settled; it was not run again."""

    def __init__(self, delivery_count: int, limit: int) -> None:
        super().__init__(delivery_count, limit)
        self.delivery_count, self.limit = delivery_count, limit

    def __str__(self) -> str:
        return (
            f"delivered {self.delivery_count - 1} times and never settled (limit {self.limit}): "
            "each time its worker died or stalled, most likely because of this task"
        )


@final
class LeaseLost(AttemptError):  # noqa: N818 - it names a state
    """The delivery is not ours any more: its lease ran out while it was worked on."""

    def __init__(self, message_id: str) -> None:
        super().__init__(message_id)
        self.message_id = message_id

    def __str__(self) -> str:
        return f"the lease of message {self.message_id!r} was lost; what this try did is not kept"


@final
class WorkerLost(AttemptError):  # noqa: N818 - it names a state
    """The worker that had started an at-most-once task is gone."""

    def __init__(self, worker_id: str) -> None:
        super().__init__(worker_id)
        self.worker_id = worker_id

    def __str__(self) -> str:
        return f"worker {self.worker_id} is gone; the task had started there and may or may not have finished"


@final
class ProcessStartError(AttemptError):
    """The child process of a task could not be started, or could not import the task; it was not run."""

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task, self.problem = task, problem

    def __str__(self) -> str:
        return (
            f"no child process could be made ready for task {self.task!r}: {self.problem}; "
            "a child imports the task's module again, with the worker's sys.path and directory"
        )


@final
class ProcessDiedError(AttemptError):
    """The child process of a task died while the task ran, and not because of its worker.

    ``exit_code`` is negative where a signal ended it.
    """

    def __init__(self, task: str, exit_code: int) -> None:
        super().__init__(task, exit_code)
        self.task, self.exit_code = task, exit_code

    def __str__(self) -> str:
        how, hint = _end_of_process(self.exit_code)
        return f"the child process of task {self.task!r} {how}: {hint}"


def _end_of_process(code: int) -> tuple[str, str]:
    if code >= 0:
        return f"ended with exit code {code}", "look for os._exit() in what it calls; an exception fails a task without that"
    known = -code in signal.valid_signals()
    how = f"was ended by {signal.Signals(-code).name if known else f'signal {-code}'}"
    if -code == signal.SIGKILL:
        return how, "most likely by the kernel, out of memory; with process_memory_bytes set it gets a MemoryError before that"
    if -code in _CRASHES:
        return how, "a C extension has crashed; the stack is in the standard error of the worker"
    return how, "somebody sent it that signal"


_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


class RemoteError(AttemptError):
    """What a task raised in its child process, as the layers in its worker see it; nothing but text has crossed.

    Its class is named as the one that was raised. ``kind`` is that name, ``family`` the dotted names of the class and of all
    that it derives from, and ``traceback`` the text of the traceback.
    """

    def __init__(self, kind: str, family: tuple[str, ...], text: str, traceback: str | None = None) -> None:
        super().__init__(kind, family, text, traceback)
        self.kind, self.family, self.text, self.traceback = kind, family, text, traceback

    def __str__(self) -> str:
        return self.text

    @staticmethod
    def of(kind: str, family: tuple[str, ...], text: str, traceback: str | None = None) -> RemoteError:
        """The error with a class of its own, for whoever reports the names of classes."""
        named = _remote_class(kind, family[0].removesuffix(f".{kind}"))
        return named(kind, family, text, traceback)


@lru_cache(maxsize=256)
def _remote_class(kind: str, module: str) -> type[RemoteError]:
    def reduce(error: RemoteError) -> tuple[Any, ...]:
        return RemoteError.of, error.args  # a class made here cannot be found by its name

    return type(kind.rpartition(".")[2], (RemoteError,), {"__module__": module, "__qualname__": kind, "__reduce__": reduce})


@final
class ThreadsExhaustedError(ChicoryError):
    """A worker has ended since half of its threads, or more, run sync tasks that nobody waits for any longer."""

    def __init__(self, abandoned: int, size: int) -> None:
        super().__init__(abandoned, size)
        self.abandoned, self.size = abandoned, size

    def __str__(self) -> str:
        return (
            f"{self.abandoned} of {self.size} threads are lost to sync tasks that ran over their timeout: "
            "let a supervisor restart the worker, and give what these tasks wait for a timeout of its own"
        )


@final
class SyncCallError(ChicoryError, RuntimeError):
    """A blocking call was made on a thread whose event loop it would stop."""

    def __init__(self, blocking: str, instead: str) -> None:
        super().__init__(blocking, instead)
        self.blocking, self.instead = blocking, instead

    def __str__(self) -> str:
        return f"{self.blocking} would block the event loop that runs on this thread: use `{self.instead}`"


@final
class NotIdleError(ChicoryError):
    """A test waited until its app was idle, and the app does not get there. *tasks* are ``name (how often)``."""

    def __init__(self, limit: str, tasks: tuple[str, ...], hint: str) -> None:
        super().__init__(limit, tasks, hint)
        self.limit, self.tasks, self.hint = limit, tasks, hint

    def __str__(self) -> str:
        return f"not idle after {self.limit}: {', '.join(self.tasks) or 'no task'}; {self.hint}"
