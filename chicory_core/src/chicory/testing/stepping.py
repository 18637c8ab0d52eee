"""Stopping a task dead between two of its steps, as a process that is killed stops: nothing of it runs any more.

A coroutine that is left behind is never resumed, closed or freed: its ``finally`` blocks and ``except`` clauses do not run.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sysconfig
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct

import chicory
from chicory.memory_store import SETTLED
from chicory.message import DeliveryMode
from chicory.middleware import current_attempt
from chicory.options import place_of
from chicory.testing.recorder import Probe, stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterator
    from types import FrameType

    from chicory.memory_store import MemoryStore
    from chicory.middleware import Attempt, Next, Outcome
    from chicory.testing.clock import FakeClock

__all__ = ["Point", "Stepper"]

_OURS = str(Path(chicory.__file__).parent)
_NOT_OF_USERS = (_OURS, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))

_PLUGINS = "chicory_"
"""What packages of plugins are called, by convention."""
_A_MOMENT = 1e-6


@final
class Point(Struct, frozen=True, kw_only=True):
    """A place where a crash can hit: *step* of the *run*-th run of *task*; *place* is for a person."""

    task: str
    run: int
    step: int
    place: str

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.task, self.run, self.step)


@final
class Stepper(Probe):
    """Sees every point of the tasks that run, and lets the process die at one of them, if it is told which."""

    def __init__(self, clock: FakeClock, store: MemoryStore, tasks: frozenset[str] | None, target: Point | None) -> None:
        self.points: list[Point] = []
        self.was_hit = False
        self._clock, self._store, self._tasks = clock, store, tasks
        self._target = target
        self._is_dead = False
        self._on_restart: Callable[[], Any] | None = None
        self._runs: Counter[str] = Counter()
        self._steps: dict[str, _Steps] = {}
        self._spawned: set[asyncio.Future[Any]] = set()

    @property
    def is_dead(self) -> bool:
        return self._is_dead

    def on_restart(self, callback: Callable[[], Any] | None) -> None:
        """Call *callback*, plain or async, between the death of a process and the start of the next."""
        self._on_restart = callback

    @contextmanager
    def watching(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """What tasks spawn is stepped like they are: it dies with them."""
        before = loop.get_task_factory()

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
            attempt = current_attempt.get()
            steps = None if attempt is None else self._steps.get(attempt.delivery.receipt)
            is_spawned = steps is not None and asyncio.iscoroutine(coroutine) and not _is_ours(coroutine)
            if is_spawned and steps is not None:
                coroutine = _stepped(coroutine, steps)
            task = asyncio.Task(coroutine, loop=loop, **options) if before is None else before(loop, coroutine, **options)
            if is_spawned:
                self._spawned.add(task)
            return task

        loop.set_task_factory(factory)
        try:
            yield
        finally:
            loop.set_task_factory(before)

    async def around(self, attempt: Attempt, proceed: Next) -> Outcome:
        task = attempt.task
        assert task is not None, "the decode layer passes on no attempt without task"
        if self._is_dead:
            await _for_ever()
        if not self._is_watched(task.name) or task.options_of_task.delivery_mode is DeliveryMode.AT_MOST_ONCE:
            return await proceed(attempt)
        self._runs[task.name] += 1
        steps = self._steps[attempt.delivery.receipt] = _Steps(self, task.name, self._runs[task.name])
        where = f"{_short(place_of(task.function))} in {task.function.__qualname__}"
        if steps.is_last(f"before its first step ({where})"):
            await _for_ever()
        if task.options_of_task.execution == "async":
            attempt.task = stand_in(task, _stepping(task.function, steps))
        outcome = await proceed(attempt)
        if steps.is_last(f"after its last step, before it is settled ({where})"):
            await _for_ever()
        return outcome

    async def restart(self) -> None:
        """Let the lease of the dead process run out; then the message is delivered again."""
        for task in self._spawned:
            task.cancel()
        await asyncio.gather(*self._spawned, return_exceptions=True)
        self._spawned.clear()
        self._steps.clear()
        if self._on_restart is not None:
            answer = self._on_restart()
            if asyncio.iscoroutine(answer):
                await answer
        self._is_dead = False
        with self._store.lock:
            leases = [message.lease_until for message in self._store.leased.values()]
        await self._clock.advance(max(0.0, max(leases, default=0.0) - self._clock.monotonic()) + _A_MOMENT)

    def reached(self, point: Point) -> bool:
        """Whether the process dies here."""
        if self._is_dead or self.was_hit:
            return self._is_dead
        self.points.append(point)
        if self._target is None or point.key != self._target.key:
            return False
        self.was_hit = self._is_dead = True
        with self._store.lock:
            self._orphan()
            self._store.wakeups.wake(SETTLED)
        return True

    def _is_watched(self, task: str) -> bool:
        return self._tasks is None or task in self._tasks

    def _orphan(self) -> None:
        """From now on no word of the dead process reaches the store: its leases belong to nobody, until they run out."""
        store = self._store
        for receipt, message in list(store.leased.items()):
            del store.leased[receipt]
            message.receipt = f"dead:{receipt}"
            store.leased[message.receipt] = message


class _Steps:
    """The steps of one run of one task, those of what it spawned among them."""

    def __init__(self, stepper: Stepper, task: str, run: int) -> None:
        self._stepper, self._task, self._run = stepper, task, run
        self._count = 0

    def have_ended(self) -> bool:
        """The process is dead."""
        return self._stepper.is_dead

    def is_last(self, place: str) -> bool:
        """Count a step; whether it was the last one before a death."""
        self._count += 1
        return self._stepper.reached(Point(task=self._task, run=self._run, step=self._count, place=place))


def _stepping(function: Callable[..., Any], steps: _Steps) -> Callable[..., Coroutine[Any, Any, Any]]:
    def step(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        return _stepped(function(*args, **kwargs), steps)

    return step


async def _stepped(coroutine: Any, steps: _Steps) -> Any:
    return await _Stepped(coroutine, steps)


@final
class _Stepped:
    """Drives a coroutine as the event loop would, and looks between its steps whether it is to go on."""

    def __init__(self, coroutine: Any, steps: _Steps) -> None:
        self._coroutine, self._steps = coroutine, steps

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, steps = self._coroutine, self._steps
        step, value = coroutine.send, None
        while True:
            if steps.have_ended():
                return (yield from self._leave())
            try:
                waits_for = step(value)
            except StopIteration as stop:
                return stop.value
            if steps.is_last(_where(coroutine)):
                if asyncio.isfuture(waits_for):
                    waits_for._asyncio_future_blocking = False  # noqa: SLF001 - the event loop will not get to see it
                return (yield from self._leave())
            try:
                step, value = coroutine.send, (yield waits_for)
            except BaseException as error:
                if steps.have_ended():
                    _keep(coroutine)
                    raise
                step, value = coroutine.throw, error

    def _leave(self) -> Generator[Any, Any, Any]:
        _keep(self._coroutine)
        return (yield from _for_ever().__await__())


def _keep(coroutine: Any) -> None:
    """Never free *coroutine*: Python would close it then, and that runs its ``finally`` blocks: no dead process does."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _is_ours(coroutine: Any) -> bool:
    """A coroutine of the core: what a task has handed over to it is on its way, whether or not the task dies."""
    code = getattr(coroutine, "cr_code", None)
    return code is None or code.co_filename.startswith(_OURS)


def _is_of_users(frame: FrameType) -> bool:
    """Of neither a library nor a plugin, which may be installed as editable."""
    is_plugin = str(frame.f_globals.get("__name__", "")).startswith(_PLUGINS)
    return not is_plugin and not frame.f_code.co_filename.startswith(_NOT_OF_USERS)


def _where(coroutine: Any) -> str:
    """Where *coroutine* waits: its own line, and the innermost line of the user's code if that is another."""
    frames = []
    inner = coroutine
    while (frame := getattr(inner, "cr_frame", None)) is not None:
        frames.append(frame)
        inner = inner.cr_await
    theirs = [frame for frame in frames if _is_of_users(frame)] or frames[:1]
    places = [f"{_short(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}" for frame in theirs]
    return ", at ".join(dict.fromkeys((places[0], places[-1]))) if places else "somewhere"


def _short(path: str) -> str:
    """*path* as seen from here, if it lies below."""
    here = os.path.relpath(path)
    return path if here.startswith("..") else here
