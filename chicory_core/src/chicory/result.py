"""The handle on a task that was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, final

from chicory.clock import Clock, within
from chicory.errors import BackendNotConfiguredError, ResultIgnoredError, ResultNotFoundError, TaskFailedError
from chicory.message import ResultRecord, TaskState

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

    from chicory.message import TaskResult

__all__ = ["AsyncResult", "ResultSource"]

R = TypeVar("R")
T = TypeVar("T")


class ResultSource(Protocol):
    """Where a handle asks: ``app.backend``."""

    @property
    def clock(self) -> Clock: ...
    @property
    def unknown_seconds(self) -> float:
        """How long a hand-made handle waits for a first sign of its id, where nothing tells that the id exists."""
        ...

    async def tracks_pending(self) -> bool:
        """Every accepted task has a record from the start, so that an id without one is unknown."""
        ...

    async def fetch_record(self, task_id: str) -> ResultRecord | None: ...
    async def wait_record(self, task_id: str) -> ResultRecord | None: ...
    async def forget(self, task_id: str) -> bool: ...
    def read(self, record: ResultRecord) -> TaskResult:
        """The record with its value decoded: by its task's annotation if that task is registered here."""
        ...

    def run_sync(self, coroutine: Coroutine[Any, Any, T], *, blocking: str, instead: str) -> T:
        """Run *coroutine* on the portal thread; raises ``SyncCallError`` where that would stop a running loop."""
        ...


@final
class AsyncResult(Generic[R]):
    """The result of one task, in any process: ``AsyncResult(task_id, app.backend)``, or what ``delay`` returned.

    Waiting is pushed by the backend. Every method but the constructor raises ``BackendNotConfiguredError`` if there is none.
    """

    __slots__ = ("_ours", "_source", "task_id")

    def __init__(self, task_id: str, backend: ResultSource | None, *, ours: bool = False) -> None:
        self.task_id = task_id
        self._source = backend
        self._ours = ours  # sent by this process: the id exists, however long its first sign takes

    def __repr__(self) -> str:
        return f"AsyncResult({self.task_id!r})"

    def __await__(self) -> Generator[Any, None, R]:
        return self.get().__await__()

    async def get(self, timeout: float | None = None, poll_interval: float | None = None) -> R:
        """The task's return value, as its annotation has it.

        *timeout* is in seconds; when it passes, the task goes on. *poll_interval* matters only to a backend that cannot push.

        Raises:
            TaskFailedError: the task ended in any other way than success.
            TimeoutError: it did not end in time.
            ResultNotFoundError: the id is unknown, or its result has expired or was forgotten.
            ResultIgnoredError: the task keeps no value.
        """
        source = self._backend()
        try:
            record = await within(source.clock, timeout, self._ended(source))
        except TimeoutError:
            raise TimeoutError(f"task {self.task_id!r} did not end within {timeout} s; it goes on") from None
        return cast("R", self._value(source.read(record)))

    def get_sync(self, timeout: float | None = None) -> R:
        """`get` for code without event loop; raises ``SyncCallError`` on a thread where one runs."""
        return self._backend().run_sync(self.get(timeout), blocking="get_sync()", instead="await result.get()")

    async def info(self) -> TaskResult:
        """Everything known about the task right now, without waiting.

        Raises:
            ResultNotFoundError: the id is unknown, or its result has expired or was forgotten.
        """
        source = self._backend()
        return source.read(await self._known(source))

    async def state(self) -> TaskState:
        """Where the task stands right now; raises ``ResultNotFoundError`` as `info` does."""
        return (await self._known(self._backend())).state

    async def ready(self) -> bool:
        """Whether the task has ended, well or not."""
        return (await self.state()).is_terminal

    async def failed(self) -> bool:
        """Whether the task has ended otherwise than in success."""
        state = await self.state()
        return state.is_terminal and state is not TaskState.SUCCESS

    async def forget(self) -> bool:
        """Drop the result; False if there was none. A task that still waits or runs keeps its record."""
        return await self._backend().forget(self.task_id)

    def _backend(self) -> ResultSource:
        if self._source is None:
            raise BackendNotConfiguredError
        return self._source

    async def _known(self, source: ResultSource) -> ResultRecord:
        record = await source.fetch_record(self.task_id)
        if record is not None:
            return record
        if await source.tracks_pending():
            raise self._unknown("it is unknown, or its result has expired or was forgotten")
        return ResultRecord(id=self.task_id, state=TaskState.PENDING)

    async def _ended(self, source: ResultSource) -> ResultRecord:
        record = await self._first_sign(source) if not self._ours else await source.wait_record(self.task_id)
        if record is None:
            raise self._unknown("it is unknown, or its result has expired or was forgotten")
        return record

    async def _first_sign(self, source: ResultSource) -> ResultRecord | None:
        """The terminal record of an id that this process has not sent itself."""
        if await source.tracks_pending():
            return await source.wait_record(self.task_id)
        while True:
            try:
                return await within(source.clock, source.unknown_seconds, source.wait_record(self.task_id))
            except TimeoutError:
                if await source.fetch_record(self.task_id) is None:
                    raise self._unknown(f"no sign of it within {source.unknown_seconds} s") from None

    def _unknown(self, reason: str) -> ResultNotFoundError:
        return ResultNotFoundError(self.task_id, reason)

    def _value(self, result: TaskResult) -> object:
        if result.state is not TaskState.SUCCESS:
            raise TaskFailedError(
                self.task_id,
                result.task or "?",
                result.state,
                result.error_type or result.state,
                result.error or "",
                result.traceback,
                result.reason,
            )
        if result.ignored:
            raise ResultIgnoredError(self.task_id, result.task or "?")
        return result.value
