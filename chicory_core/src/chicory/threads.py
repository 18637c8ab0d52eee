"""Threads for sync tasks: daemons, so that a stuck one cannot block the exit, with one wake-up of the loop per batch."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ThreadPool"]

_Work = tuple["asyncio.Future[Any]", "Callable[[], Any]", contextvars.Context]


@final
class ThreadPool:
    """Runs functions in up to *size* threads and brings their results back to the event loop that asked.

    ``loop.run_in_executor`` costs 40 µs a call, most of it waking the loop for each result; here results that come while
    the loop is busy are fetched together. A thread that was given up (`abandon`) is replaced, so the pool keeps its size.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.abandoned: set[asyncio.Future[Any]] = set()
        """What stuck threads were given; each thread ends when its function does."""
        self._work: SimpleQueue[_Work | None] = SimpleQueue()
        self._done: list[tuple[asyncio.Future[Any], bool, Any]] = []
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def submit(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run *function* in a thread, in a copy of the current context; the future is its result or exception."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._busy += 1
        if self._threads < min(self._busy, self.size):
            self._start_thread()
        self._work.put((future, function, contextvars.copy_context()))
        return future

    def abandon(self, future: asyncio.Future[Any]) -> None:
        """Nobody will wait for this function any longer: give its place to another thread."""
        with self._lock:
            if any(future is done for done, _, _ in self._done):
                return  # it has ended meanwhile: its thread is free
            self.abandoned.add(future)
        self._threads -= 1
        self._busy -= 1

    @property
    def is_exhausted(self) -> bool:
        """Half of it is lost to functions that nobody waits for: what they hold is not coming back."""
        return len(self.abandoned) * 2 >= self.size

    def close(self) -> None:
        """Let idle threads end. Does not wait: those that run a function end with it, or with the process."""
        for _ in range(self._threads + len(self.abandoned)):
            self._work.put(None)

    def _start_thread(self) -> None:
        self._threads += 1
        threading.Thread(target=self._run, name=f"chicory-task-{self._threads}", daemon=True).start()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, context = work
            try:
                value, worked = context.run(function), True
            except BaseException as error:  # noqa: BLE001 - the edge of user code: all of it goes to the caller, SystemExit too
                value, worked = error, False
            was_replaced = self._bring_back(future, worked=worked, value=value)
            del work, future, function, context, value  # an idle thread keeps nothing alive
            if was_replaced:
                return

    def _bring_back(self, future: asyncio.Future[Any], *, worked: bool, value: Any) -> bool:
        """Hand over what came out; True if this thread's place was given away meanwhile."""
        with self._lock:
            was_replaced = future in self.abandoned
            self._done.append((future, worked, value))
            is_first = len(self._done) == 1
        if is_first:
            try:
                future.get_loop().call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._done.clear()
        return was_replaced

    def _deliver(self) -> None:
        with self._lock:
            done, self._done = self._done, []
        for future, worked, value in done:
            if future in self.abandoned:
                self.abandoned.discard(future)
                continue
            self._busy -= 1
            if future.done():  # cancelled: whoever waited is gone
                continue
            if worked:
                future.set_result(value)
            elif isinstance(value, StopIteration):
                future.set_exception(RuntimeError(f"the task raised {value!r}"))  # a future cannot hold StopIteration
            else:
                future.set_exception(value)
