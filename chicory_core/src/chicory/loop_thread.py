"""A daemon thread with an event loop of its own: for what must go on while the main loop is busy, or where there is none."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

__all__ = ["LoopThread"]

T = TypeVar("T")


@final
class LoopThread:
    """An event loop that runs in a daemon thread from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._submitted: set[asyncio.Task[Any]] = set()

    @property
    def is_current(self) -> bool:
        """The caller runs on this thread."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Return once the loop runs."""
        running = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(running,), name=self._name, daemon=True)
        self._thread.start()
        running.wait()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run *coroutine* on this thread's loop, from any other thread."""
        assert self._loop is not None, "submit() comes between start() and stop()"  # noqa: S101
        return asyncio.run_coroutine_threadsafe(self._tracked(coroutine), self._loop)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call *callback* at the next turn of this thread's loop, from any other thread."""
        assert self._loop is not None, "call_soon() comes between start() and stop()"  # noqa: S101
        self._loop.call_soon_threadsafe(callback)

    def stop(self) -> None:
        """Cancel what still runs there and end the loop; returns when the thread has ended. Safe to repeat."""
        loop, thread = self._loop, self._thread
        if loop is None or self._stopping is None or thread is None or not thread.is_alive():
            return
        loop.call_soon_threadsafe(self._stopping.set)
        thread.join()

    def _run(self, running: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            runner.run(self._live(running))

    async def _live(self, running: threading.Event) -> None:
        self._stopping = asyncio.Event()
        running.set()
        await self._stopping.wait()
        # Only what was submitted. Its own tasks are its to cancel: were they cancelled here too, they would be twice, and the
        # second time while they close what they have opened.
        for task in self._submitted:
            task.cancel()
        await asyncio.gather(*self._submitted, return_exceptions=True)

    async def _tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"  # noqa: S101
        self._submitted.add(task)
        try:
            return await coroutine
        finally:
            self._submitted.discard(task)
