"""Blocking calls from code without event loop: one daemon thread per process runs the asynchronous ones."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from chicory.errors import SyncCallError
from chicory.loop_thread import LoopThread

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["run_sync"]

T = TypeVar("T")

_lock = threading.Lock()
_portal: tuple[int, LoopThread] | None = None


def run_sync(coroutine: Coroutine[Any, Any, T], *, blocking: str, instead: str) -> T:
    """The result of *coroutine*, run on the portal thread; that thread is made anew in a forked child.

    Raises:
        SyncCallError: an event loop runs on this thread, and *blocking* would stop it; *instead* says what to write.
    """
    if asyncio._get_running_loop() is not None:  # noqa: SLF001 - the documented way raises, and this is asked on every call
        coroutine.close()
        raise SyncCallError(blocking, instead)
    future = _thread().submit(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()  # KeyboardInterrupt: nobody waits for it any more
        raise


def _thread() -> LoopThread:
    global _portal  # noqa: PLW0603 - one per process, whoever asks first
    with _lock:
        if _portal is None or _portal[0] != os.getpid():
            thread = LoopThread("chicory-portal")
            thread.start()
            _portal = (os.getpid(), thread)
        return _portal[1]


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
