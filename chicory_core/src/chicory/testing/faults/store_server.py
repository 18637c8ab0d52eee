"""A store's server as a process of a run, to be killed and started again."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StoreServer"]

_SETTLES = 0.5
"""Seconds that a server gets before it is used; whoever asks it earlier asks again."""


@final
class StoreServer:
    """Started by *command*, if there is one; what it says goes to a file in *folder*."""

    def __init__(self, command: tuple[str, ...], folder: Path) -> None:
        self._command, self._log = command, folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and see that it does not end at once.

        Raises:
            AssertionError: it did.
        """
        if not self._command:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)  # noqa: S603, ASYNC220 - a test's own command
        await asyncio.sleep(_SETTLES)
        assert self._process.poll() is None, f"the server ended:\n{self._log.read_text()[-2000:]}"

    def kill(self) -> int:
        """SIGKILL; return its pid."""
        assert self._process is not None, "there is a server to kill"
        self._process.kill()
        self._process.wait()
        return self._process.pid

    def end(self) -> None:
        """End it, if it was started."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
