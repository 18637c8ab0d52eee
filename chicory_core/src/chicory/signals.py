"""SIGTERM and SIGINT as orders to a worker: the first drains it, the second hurries it, the third ends the process."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["draining_on_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def draining_on_signals(drain: Callable[[], None], hurry: Callable[[], None]) -> Iterator[None]:
    """Inside, on the main thread, the first signal calls *drain*, the second *hurry*, the third ends the process at once.

    On another thread nothing is changed: signals belong to the main one. The former handlers are put back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    received = 0

    def handle(number: int) -> None:
        nonlocal received
        received += 1
        if received == 1:
            drain()
        elif received == 2:  # noqa: PLR2004 - the second
            hurry()
        else:
            os._exit(128 + number)

    former = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, former[number])
