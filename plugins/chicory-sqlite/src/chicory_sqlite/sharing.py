"""One engine per file and process, however many brokers and backends use it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING

from chicory_sqlite.engine import Engine

if TYPE_CHECKING:
    from pathlib import Path

    from chicory_sqlite.tables import File

__all__ = ["acquire", "release"]

_engines: dict[Path, tuple[Engine, int]] = {}
_lock = threading.Lock()
_left_to_parent: list[object] = []


async def acquire(file: File) -> Engine:
    """The engine of this process for *file*, opened; every `acquire` needs a `release`.

    Raises:
        ConfigurationError, BrokerConnectionError: see ``schema.open_database``.
    """
    with _lock:
        engine, users = _engines.get(file.path) or (Engine(file), 0)
        _engines[file.path] = (engine, users + 1)
    try:
        await asyncio.wrap_future(engine.opened)
    except BaseException:
        await release(engine)
        raise
    return engine


async def release(engine: Engine) -> None:
    """Give an engine back; the last user closes it, and returns when it is closed."""
    with _lock:
        _, users = _engines[engine.file.path]
        if users > 1:
            _engines[engine.file.path] = (engine, users - 1)
            return
        del _engines[engine.file.path]
    if engine.opened.done() and engine.opened.exception() is not None:
        return  # it never was open, and its thread has ended
    engine.close()
    await asyncio.wrap_future(engine.closed)


def _after_fork() -> None:
    """A connection must not be carried over a fork, nor closed in the child: that would drop the parent's locks."""
    global _lock  # noqa: PLW0603 - another thread of the parent may have held it
    _lock = threading.Lock()
    _left_to_parent.append(dict(_engines))
    _engines.clear()


def _at_exit() -> None:
    for engine, _ in list(_engines.values()):
        engine.close()
        with contextlib.suppress(Exception):  # the process ends: nobody is left to tell
            engine.closed.result(timeout=1)


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
