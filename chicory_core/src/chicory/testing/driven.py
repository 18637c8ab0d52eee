"""A backend on which waiting for a result runs what leads to it: in a test nobody else would."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, final

from chicory.codec import read
from chicory.errors import NotIdleError
from chicory.middleware import current_attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from chicory.memory import MemoryBackend, MemoryStore
    from chicory.message import ResultRecord

__all__ = ["DrivenBackend"]


@final
class DrivenBackend:
    """A `MemoryBackend` in all but `wait`."""

    def __init__(self, backend: MemoryBackend, store: MemoryStore, run: Callable[[], Awaitable[None]]) -> None:
        self._backend, self._store, self._run = backend, store, run

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def twin(self) -> DrivenBackend:
        return DrivenBackend(self._backend.twin(), self._store, self._run)

    async def wait(self, task_id: str, *, exists: bool) -> ResultRecord | None:
        """The record of a task that has ended, once everything that is due has run; a task that waits is no reason to run.

        Raises:
            NotIdleError: the task is to run later, and the clock stands still.
        """
        if current_attempt.get() is not None:  # a worker works: the one that runs who asks
            return await self._backend.wait(task_id, exists=exists)
        await self._run()
        with self._store.lock:
            record, message = self._store.record(task_id), self._store.messages.get(task_id)
        if record is not None and not record.state.is_terminal:
            name = "?" if message is None else read(message.envelope).task
            hint = "let time pass before you wait for its result: await chicory_run.jump(seconds)"
            raise NotIdleError("everything that is due has run", (f"{name} ({record.state.value})",), hint)
        return record
