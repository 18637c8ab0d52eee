"""What a running task can ask and say about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, final

from chicory.errors import FinalError, RetryError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from chicory.message import TaskMessage

__all__ = ["TaskContext"]


@final
class TaskContext:
    """Injected as the first parameter of a task that asks for it (``ctx: TaskContext``); never passed by callers."""

    __slots__ = ("_message", "_report", "app", "deadline", "max_retries")

    def __init__(
        self,
        message: TaskMessage,
        *,
        app: Any,
        max_retries: int = 0,
        deadline: datetime | None = None,
        report: Callable[[float, float], Awaitable[None]] | None = None,
    ) -> None:
        self._message = message
        self._report = report
        self.app = app
        self.max_retries = max_retries
        """How often the task may be retried; 0 without a policy."""
        self.deadline = deadline
        """When its ``timeout`` will end this try; None if it has none."""

    def __repr__(self) -> str:
        return f"<TaskContext of {self.task_name} {self.task_id}, retry {self.retries} of {self.max_retries}>"

    @property
    def task_id(self) -> str:
        return self._message.id

    @property
    def task_name(self) -> str:
        return self._message.name

    @property
    def queue(self) -> str:
        return self._message.queue

    @property
    def headers(self) -> Mapping[str, str]:
        return self._message.headers

    @property
    def retries(self) -> int:
        """How many tries of this task failed before this one: 0 the first time."""
        return self._message.retries

    @property
    def remaining_retries(self) -> int:
        return max(0, self.max_retries - self.retries)

    @property
    def is_last_retry(self) -> bool:
        """No retry is left: if this try fails, the task has failed."""
        return self.remaining_retries == 0

    def retry(self, countdown: float | None = None, exc: BaseException | None = None) -> NoReturn:
        """End this try and run the task again after *countdown* seconds (None: as its policy says).

        Raises:
            RetryError: always; let it pass. If no retry is left, the task ends with ``MaxRetriesExceededError``.
        """
        if countdown is not None and countdown < 0:
            raise ValueError(f"countdown must be 0 or more seconds, not {countdown!r}")
        raise RetryError(countdown, None if exc is None else f"{type(exc).__name__}: {exc}") from exc

    def fail(self, exc: BaseException | str) -> NoReturn:
        """End the task as failed, with *exc* as its error, whatever its retry policy says.

        Raises:
            FinalError: always; let it pass.
        """
        if isinstance(exc, str):
            raise FinalError(exc)
        raise FinalError(str(exc)) from exc

    async def progress(self, done: float, total: float) -> None:
        """Let ``AsyncResult.info().progress`` say how far this is. Costs no round trip of its own while others go out."""
        if self._report is not None:
            await self._report(done, total)
