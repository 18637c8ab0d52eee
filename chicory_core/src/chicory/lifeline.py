"""A worker's side of its supervisor's socket: says that it is ready, and notices when the supervisor is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Lifeline"]


@final
class Lifeline:
    """Belongs to the running event loop; *on_cut* is called when the supervisor has died."""

    def __init__(self, fd: int, on_cut: Callable[[], None]) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._on_cut = on_cut
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def say_ready(self, shutdown_timeout: float) -> None:
        """Tell the supervisor, and for how long this worker may take to stop."""
        with contextlib.suppress(ConnectionError):  # it has died: that is read from the socket
            self._socket.sendall(msgspec.json.encode({"pid": os.getpid(), "shutdown_timeout": shutdown_timeout}))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        try:
            is_cut = not self._socket.recv(64)
        except ConnectionError:  # it died with something of ours unread
            is_cut = True
        if is_cut:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._on_cut()
