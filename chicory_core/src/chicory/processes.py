"""Child processes for tasks that hold the interpreter lock, crash, or must be stopped: spawned, kept warm, really killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self, final

from chicory.border import Import, Progressed, Raised, Ready, Returned, Setup, frame, read_answer
from chicory.errors import ProcessDiedError, ProcessStartError
from chicory.logs import get_logger

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable, Coroutine
    from types import TracebackType

    from chicory.border import Answer, Order, Run
    from chicory.config import WorkerConfig
    from chicory.home import Home
    from chicory.launch import Launch

__all__ = ["ChildProcess", "ProcessPool", "process_pool"]

_LAST_WORDS = 1.0
"""Seconds in which what a child said before it died arrives; a process that it forked may hold its socket open for longer."""
_REAPED_WITHIN = 5.0
"""Seconds that the system may take to end a process that was killed."""
_IMPORT_SECONDS = 120.0
"""Seconds that a child may take to start and to import a task: a hang there would keep the message for ever."""
_LEAVE_SECONDS = 4.0
"""Seconds that a child without task gets to flush what its plugins hold, before it is killed."""
_MEMORY_ERROR = "builtins.MemoryError"


@final
class ChildProcess:
    """One child, as its worker sees it: it runs one task at a time, in a session and process group of its own."""

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._process, self._reader, self._writer = process, reader, writer
        self._exited = asyncio.ensure_future(process.wait())
        self._ready: set[str] = set()
        self._log = get_logger("processes", pid=process.pid)
        self.tasks_run = 0
        self.is_spent = False
        """It is not to run another task."""

    @classmethod
    async def start(cls, setup: Setup, folder: Path) -> ChildProcess:
        """A new child of this process, in *folder*. Raises ``OSError`` if the system has no room for one."""
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "chicory.child", str(theirs.fileno()), str(os.getpid())),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    cwd=folder,
                    start_new_session=True,  # a Ctrl-C of the terminal drains the worker, and what runs here is part of that
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            stack.pop_all()
        child = cls(process, reader, writer)
        writer.write(frame(setup))
        child._log.debug("process_started")
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_dead(self) -> bool:
        return self._exited.done()

    @property
    def is_usable(self) -> bool:
        """It can run another task. The end of its socket is seen before the system has told of its death."""
        return not (self.is_spent or self.is_dead or self._reader.at_eof())

    async def import_task(self, home: Home) -> None:
        """Make it ready to run a task; costs nothing when it is.

        Raises:
            ProcessStartError: it cannot import it.
            ProcessDiedError: it died of it.
        """
        if home.task in self._ready:
            return
        try:
            answer = await asyncio.wait_for(self._ask(Import(home=home), home.task), _IMPORT_SECONDS)
        except TimeoutError:
            raise ProcessStartError(home.task, f"its import has not ended within {_IMPORT_SECONDS} s") from None
        if isinstance(answer, Raised):
            self.is_spent = True  # half an import is not a state to go on from
            raise ProcessStartError(home.task, f"{answer.kind}: {answer.text}")
        self._ready.add(home.task)

    async def run(self, order: Run, on_progress: Callable[[float, float], object]) -> Returned | Raised:
        """Run a task that is ready. Cancelling this kills the child, and everything that the task has started in its group.

        Raises:
            ProcessDiedError: it died by itself, or somebody killed it.
        """
        self.tasks_run += 1
        answer = await self._ask(order, order.task, on_progress)
        assert isinstance(answer, Returned | Raised), "a child answers what it is asked"  # noqa: S101
        if isinstance(answer, Raised) and _MEMORY_ERROR in answer.family:
            self.is_spent = True  # what it could not free would be missing to the next task
        return answer

    async def leave(self) -> None:
        """Let it end: it sees its socket closed. Returns when it is gone, killed if need be."""
        self.is_spent = True
        self._writer.close()
        if not (await asyncio.wait([self._exited], timeout=_LEAVE_SECONDS))[0]:
            self._log.warning("process_does_not_leave")
            await self.kill()

    async def kill(self) -> None:
        """End it now, with its process group; returns when it is gone."""
        self.is_spent = True
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._writer.close()
        if not (await asyncio.wait([self._exited], timeout=_REAPED_WITHIN))[0]:
            self._log.error("process_survives_kill")

    async def _ask(
        self, order: Order, task: str, on_progress: Callable[[float, float], object] = lambda *_: None
    ) -> Ready | Returned | Raised:
        talking = asyncio.ensure_future(self._talk(order, on_progress))
        try:
            await asyncio.wait([talking, self._exited], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([talking], timeout=_LAST_WORDS)
            if talking.done():
                return talking.result()
        except (EOFError, ConnectionError):
            await asyncio.wait([self._exited], timeout=_REAPED_WITHIN)
        except BaseException as error:  # cancelled: out of time, of its lease, or of the worker's own time
            self._log.warning("process_killed", task=task, error_type=type(error).__qualname__)
            talking.cancel()
            await self.kill()
            raise
        talking.cancel()
        await self.kill()
        exit_code = -signal.SIGKILL if self._process.returncode is None else self._process.returncode
        self._log.warning("process_died", task=task, exit_code=exit_code)
        raise ProcessDiedError(task, exit_code)

    async def _talk(self, order: Order, on_progress: Callable[[float, float], object]) -> Ready | Returned | Raised:
        self._writer.write(frame(order))
        await self._writer.drain()
        while isinstance(answer := await self._listen(), Progressed):
            on_progress(answer.done, answer.total)
        return answer

    async def _listen(self) -> Answer:
        return await read_answer(self._reader.readexactly)


@final
class ProcessPool:
    """Up to *size* children of one worker, started when there is work for them and kept for the next; an async context.

    A child is replaced after *recycle_tasks* tasks, and whenever one was killed.
    """

    def __init__(self, setup: Setup, *, size: int, recycle_tasks: int) -> None:
        self._setup = setup
        self._folder = Path.cwd()
        self._recycle_tasks = recycle_tasks
        self._places = asyncio.Semaphore(size)
        self._idle: list[ChildProcess] = []
        self._children: set[ChildProcess] = set()
        self._chores: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def pids(self) -> set[int]:
        """The processes that live."""
        return {child.pid for child in self._children if not child.is_dead}

    @asynccontextmanager
    async def child(self, home: Home) -> AsyncIterator[ChildProcess]:
        """A child that is ready to run the task of *home*, for the caller alone; waits until one is free.

        Raises:
            ProcessStartError, ProcessDiedError: none could be made ready.
        """
        async with self._places:
            child = await self._take(home.task)
            try:
                await child.import_task(home)
                yield child
            finally:
                self._give_back(child)

    async def close(self) -> None:
        """End all children: those without task may flush first. Safe to repeat."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        busy = self._children.difference(idle)
        await asyncio.gather(*(child.leave() for child in idle), *(child.kill() for child in busy if not child.is_spent))
        if self._chores:
            await asyncio.wait(self._chores)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _take(self, task: str) -> ChildProcess:
        while self._idle:
            if (child := self._idle.pop()).is_usable:
                return child
            self._do(self._dismiss(child))  # it has died while it had nothing to do
        # Shielded: a child that is being started is kept for the next task when this one is cancelled.
        starting = asyncio.create_task(self._start())
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._do(self._keep(starting))
            raise
        except OSError as error:
            raise ProcessStartError(task, f"{type(error).__name__}: {error}") from error

    async def _start(self) -> ChildProcess:
        child = await ChildProcess.start(self._setup, self._folder)
        self._children.add(child)
        return child

    async def _keep(self, starting: asyncio.Task[ChildProcess]) -> None:
        with contextlib.suppress(OSError):  # nobody needs it any more
            self._give_back(await starting)

    def _give_back(self, child: ChildProcess) -> None:
        if child.is_usable and child.tasks_run < self._recycle_tasks and not self._is_closed:
            self._idle.append(child)
        else:
            child.is_spent = True
            self._do(self._dismiss(child))

    async def _dismiss(self, child: ChildProcess) -> None:
        await child.leave()
        self._children.discard(child)

    def _do(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def process_pool(config: WorkerConfig, launch: Launch, worker_id: str) -> ProcessPool:
    """The pool of a worker; nothing is started yet."""
    setup = Setup(
        worker_id=worker_id,
        path=list(sys.path),
        launch=launch,
        log_level=config.log_level,
        log_format=config.log_format,
        memory_bytes=config.process_memory_bytes,
    )
    size = config.processes or min(config.concurrency, os.cpu_count() or 1)
    return ProcessPool(setup, size=size, recycle_tasks=config.process_recycle_tasks)
