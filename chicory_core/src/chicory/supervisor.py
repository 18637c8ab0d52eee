"""Several worker processes under one parent: started by spawn, restarted with back-off, stopped under one deadline."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from random import Random
from typing import TYPE_CHECKING, final

import msgspec

from chicory.backoff import Backoff
from chicory.clock import SYSTEM_CLOCK
from chicory.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["STOP_MARGIN", "Supervisor", "worker_command"]

STOP_MARGIN = 9.0
"""Seconds beyond ``shutdown_timeout`` that a worker may take to cancel, hand back, settle and close."""
_GIVE_UP_AFTER = 5
"""Restarts in a row that did not become ready, of every child, before the parent gives up."""
_MOST_RESTART_SIGNALS = 2
"""A worker drains on the first, and hurries on the second; a third would end it at once."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@final
class _Child:
    """One place for a worker process, and the process that fills it at the moment."""

    def __init__(self, number: int, rng: Random) -> None:
        self.number = number
        self.backoff = Backoff(SYSTEM_CLOCK, rng)
        self.process: asyncio.subprocess.Process | None = None
        self.lifeline: socket.socket | None = None
        self.is_ready = False
        self.was_ready = False
        self.restarts = 0
        """How often this process was asked to make room for another."""


@final
class Supervisor:
    """Keeps *count* processes of *command* alive, until a signal.

    Each gets ``--lifeline FD`` appended: a socket on which it says that it is ready, and which it sees closed when the parent
    dies. A first process that leaves with an error before it is ready ends them all: it cannot start. A *patient* supervisor
    waits for the next `restart` instead.
    """

    def __init__(self, command: Sequence[str], count: int, *, patient: bool = False, rng: Random | None = None) -> None:
        self._command = list(command)
        self._patient = patient
        self._changed = asyncio.Event()
        self._children = [_Child(number, rng or Random()) for number in range(1, count + 1)]
        self._shutdown_timeout = 0.0
        self._signals = 0
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._log = get_logger("supervisor")

    async def run(self) -> int:
        """Supervise until a signal or until no child can start; the exit code for the process."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with asyncio.TaskGroup() as group:
                keepers = [group.create_task(self._keep(child), name=f"child-{child.number}") for child in self._children]
                stopper = group.create_task(self._kill_late(), name="stopper")
                await asyncio.wait(keepers)
                stopper.cancel()
        finally:
            self._signal_all(signal.SIGKILL)
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        return self._exit_code

    def restart(self) -> None:
        """Let each process drain, and start another in its place; called again meanwhile, do not wait for what it runs."""
        self._changed.set()
        for child in self._children:
            child.restarts += 1
            if child.restarts <= _MOST_RESTART_SIGNALS:
                _signal(child, signal.SIGTERM)

    # --- one child -----------------------------------------------------------------------------

    async def _keep(self, child: _Child) -> None:
        """Start *child*, and again whenever it ends."""
        while not self._stopping.is_set():
            code = await self._live(child)
            if self._stopping.is_set():
                self._note_exit(child, code)
                return
            if child.restarts:
                continue
            if self._patient and not child.is_ready:
                self._log.error("worker_cannot_start", number=child.number, exit_code=code, waiting_for="a change")
                await self._until_changed()
                continue
            if code > 0 and not child.was_ready:
                self._log.error("worker_cannot_start", number=child.number, exit_code=code)
                self._stop_all(code or 1)
                return
            if self._is_hopeless(child):
                self._log.error("workers_cannot_restart", number=child.number, exit_code=code)
                self._stop_all(code or 1)
                return
            delay = child.backoff.next_delay()
            self._log.warning("worker_died", number=child.number, exit_code=code, restart_in=round(delay, 2))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)

    async def _until_changed(self) -> None:
        self._changed.clear()
        waiters = [asyncio.ensure_future(event.wait()) for event in (self._changed, self._stopping)]
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        for waiter in waiters:
            waiter.cancel()

    async def _live(self, child: _Child) -> int:
        """One life of a child: its exit code (negative: the signal that ended it)."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        child.is_ready = False
        child.restarts = 0
        with theirs:
            child.process = await asyncio.create_subprocess_exec(
                *self._command,
                "--lifeline",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C of the terminal reaches the parent alone, which passes it on once
            )
        child.lifeline = ours
        listening = asyncio.ensure_future(self._await_ready(child, ours))
        try:
            return await child.process.wait()
        finally:
            listening.cancel()
            ours.close()

    async def _await_ready(self, child: _Child, lifeline: socket.socket) -> None:
        try:
            data = await asyncio.get_running_loop().sock_recv(lifeline, 1024)
        except ConnectionError:
            return  # it has died: its exit code says more
        if data:
            said = msgspec.json.decode(data)
            self._shutdown_timeout = max(self._shutdown_timeout, float(said["shutdown_timeout"]))
            child.is_ready = child.was_ready = True
            child.backoff.reset()
            self._log.debug("worker_ready", number=child.number, pid=said["pid"])

    def _is_hopeless(self, child: _Child) -> bool:
        nobody_works = not any(other.is_ready for other in self._children if other is not child)
        return not child.is_ready and nobody_works and child.backoff.tries >= _GIVE_UP_AFTER

    # --- all of them ---------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        if self._signals > 2:  # noqa: PLR2004 - the third
            self._signal_all(signal.SIGKILL)
            os._exit(128 + number)
        self._stopping.set()
        self._signal_all(signal.SIGTERM)

    def _stop_all(self, exit_code: int) -> None:
        self._exit_code = exit_code if exit_code > 0 else 1
        self._stopping.set()
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for child in self._children:
            _signal(child, number)

    async def _kill_late(self) -> None:
        """After the deadline that all children share, end those that are left."""
        await self._stopping.wait()
        await asyncio.sleep(self._shutdown_timeout + STOP_MARGIN)
        self._log.error(
            "workers_killed", numbers=[c.number for c in self._children if c.process and c.process.returncode is None]
        )
        self._signal_all(signal.SIGKILL)

    def _note_exit(self, child: _Child, code: int) -> None:
        if code == -signal.SIGTERM and not child.is_ready:
            return  # told to stop before it could listen: it had nothing
        if code != 0 and self._exit_code == 0:
            self._log.error("worker_ended_badly", number=child.number, exit_code=code)
            self._exit_code = code if code > 0 else 1


def _signal(child: _Child, number: int) -> None:
    if child.process is not None and child.process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def worker_command(arguments: Sequence[str], *, writes_bytecode: bool = True) -> list[str]:
    """The command line of one worker process with this interpreter.

    Where sources change under it, it writes no bytecode: Python knows a source by its size and the second of its last change,
    and takes what it compiled of the former one for that of another edit in the same second.
    """
    return [sys.executable, *(() if writes_bytecode else ("-B",)), "-m", "chicory", "worker", *arguments]
