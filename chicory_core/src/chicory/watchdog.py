"""Notices a task loop that does not turn: names the task, shows where it is, and in the end gives the process up.

It measures the time during which this process was awake, tick by tick. Wall time would condemn a worker whose process was
stopped, or whose machine slept, for the moment at which it wakes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
import traceback
from contextvars import Context
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Protocol, final

from chicory.logs import get_logger
from chicory.middleware import current_attempt

if TYPE_CHECKING:
    from collections.abc import Callable

    from chicory.middleware import Attempt

__all__ = ["STALLED_EXIT", "Pulse", "Sight", "Turning", "Watchdog", "attempt_in"]

STALLED_EXIT = 70
"""Exit code of a process whose task loop did not turn for ``stall_limit_seconds``: EX_SOFTWARE in sysexits.h."""
_TICKS = 4
"""Ticks in ``block_report_seconds``."""
_LONGEST_TICK = 0.5
_FRAMES = 40
_SAYING_SECONDS = 5.0
"""How long a log handler, or a plugin's sink, may take: it may wait for the very lock that the blocked code holds."""


class Sight(Enum):
    """What a tick of the watchdog has found."""

    QUIET = auto()
    BLOCKED = auto()
    """The loop has not turned for long; told once a block."""
    UNBLOCKED = auto()
    """It turns again."""
    STALLED = auto()
    """It will not turn again."""


@final
class Turning:
    """For how long a loop has not turned, counted in ticks during which this process was awake. Decides; does nothing."""

    def __init__(self, *, tick: float, report_after: float, stall_after: float) -> None:
        self._tick, self._report_after, self._stall_after = tick, report_after, stall_after
        self._is_reported = False
        self.lag = 0.0
        """Seconds for which the loop had not turned at the last tick."""
        self.blocked_for = 0.0
        """Seconds of the block that was reported last."""

    def tick(self, *, elapsed: float, cpu: float, has_turned: bool) -> Sight:
        """*elapsed* seconds after the last tick, in which the process computed for *cpu* seconds.

        A tick that comes late and used no CPU means that the process was stopped: only two ticks of it count. One that used
        the CPU means that some code held the interpreter lock: all of it counts.
        """
        awake = min(elapsed, max(2 * self._tick, cpu))
        was_over = self.lag >= self._stall_after
        if has_turned and awake < self._report_after:
            return self._turned()
        self.lag += awake  # also when it turned at the begin of a late tick: what came after was silent
        if was_over and not has_turned:  # seen blocked again after the limit: what ends in this moment is no stall
            return Sight.STALLED
        return self._report()

    def _turned(self) -> Sight:
        self.lag = 0.0
        if not self._is_reported:
            return Sight.QUIET
        self._is_reported = False
        return Sight.UNBLOCKED

    def _report(self) -> Sight:
        if self.lag < self._report_after:
            return Sight.QUIET
        self.blocked_for = self.lag
        if self._is_reported:
            return Sight.QUIET
        self._is_reported = True
        return Sight.BLOCKED


@final
class Pulse:
    """Asks a loop to set a mark at its next turn. *post* is its ``call_soon_threadsafe``."""

    def __init__(self, post: Callable[[Callable[[], None]], object], turning: Turning) -> None:
        self._post, self._turning = post, turning
        self._has_turned = True

    @property
    def lag(self) -> float:
        """Seconds for which the loop has not turned."""
        return self._turning.lag

    @property
    def blocked_for(self) -> float:
        """Seconds of the last block that was reported."""
        return self._turning.blocked_for

    def tick(self, elapsed: float, cpu: float) -> Sight:
        """Look whether it has turned since the last tick, and ask again."""
        has_turned = self._has_turned
        if has_turned:
            self._has_turned = False
            with contextlib.suppress(RuntimeError):  # the loop is closed: it never turns again, and that is what is seen
                self._post(self._turn)
        return self._turning.tick(elapsed=elapsed, cpu=cpu, has_turned=has_turned)

    def _turn(self) -> None:
        self._has_turned = True


class Ward(Protocol):
    """Whose loop is watched. All of it is called on the watchdog's threads."""

    def attempt_of(self, runner: asyncio.Task[Any]) -> Attempt | None:
        """The attempt that *runner* works on, whatever its code has come to."""
        ...

    def give_up(self) -> None:
        """The process is about to end: keep no lease any longer."""
        ...

    def stalled(self) -> None:
        """Tell whoever wants to know."""
        ...

    def ticked(self) -> None:
        """A tick has passed; must be quick."""
        ...


@final
class Watchdog:
    """A daemon thread that watches the loop it is started on, and others that are added. It costs a few wake-ups a second."""

    def __init__(
        self,
        ward: Ward,
        *,
        report_after: float,
        stall_after: float,
        worker_id: str,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._ward, self._end = ward, end
        self._report_after, self._stall_after = report_after, stall_after
        self._tick = min(report_after / _TICKS, _LONGEST_TICK)
        self._told_to_stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._pulse: Pulse | None = None
        self._others: list[Pulse] = []
        self._blocking: tuple[str | None, str | None] = (None, None)
        self._log = get_logger("watchdog", worker_id=worker_id)
        self.ticked_at = time.monotonic()
        """When it looked last: whoever relies on what it saw looks at this too."""

    @property
    def lag(self) -> float:
        """Seconds for which the task loop has not turned."""
        return self._pulse.lag if self._pulse else 0.0

    def start(self) -> None:
        """Watch the running loop, from now on."""
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
        self._pulse = self._pulse_of(self._loop.call_soon_threadsafe)
        self.ticked_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="chicory-watchdog", daemon=True)
        self._thread.start()

    def add(self, post: Callable[[Callable[[], None]], object]) -> Pulse:
        """Watch another loop too, by its ``call_soon_threadsafe``; its lag is all that comes of it."""
        pulse = self._pulse_of(post)
        self._others.append(pulse)
        return pulse

    def stop(self) -> None:
        """Return when nothing is watched any more. Safe to repeat."""
        self._told_to_stop.set()
        if self._thread is not None:
            self._thread.join()

    def _pulse_of(self, post: Callable[[Callable[[], None]], object]) -> Pulse:
        return Pulse(post, Turning(tick=self._tick, report_after=self._report_after, stall_after=self._stall_after))

    # --- on its thread -------------------------------------------------------------------------

    def _run(self) -> None:
        before, cpu_before = time.monotonic(), time.process_time()
        while not self._told_to_stop.wait(self._tick):
            now, cpu = time.monotonic(), time.process_time()
            self._look(now - before, cpu - cpu_before)
            before, cpu_before = now, cpu
            self.ticked_at = now

    def _look(self, elapsed: float, cpu: float) -> None:
        assert self._pulse is not None, "start() made it"  # noqa: S101
        sight = self._pulse.tick(elapsed, cpu)
        if sight is Sight.BLOCKED:
            self._say_blocked(self._pulse.lag)
        elif sight is Sight.UNBLOCKED:
            self._say_unblocked(self._pulse.blocked_for)
        elif sight is Sight.STALLED:
            self._stall(self._pulse.lag)
        for pulse in self._others:
            pulse.tick(elapsed, cpu)
        self._ward.ticked()

    def _say_blocked(self, seconds: float) -> None:
        stack, self._blocking = self._stack(), self._who()
        task, task_id = self._blocking
        _aside(lambda: self._log.warning("loop_blocked", task=task, task_id=task_id, seconds=round(seconds, 1), stack=stack))

    def _say_unblocked(self, seconds: float) -> None:
        task, task_id = self._blocking
        _aside(lambda: self._log.warning("loop_unblocked", task=task, task_id=task_id, seconds=round(seconds, 1)))

    def _stall(self, seconds: float) -> None:
        """The end: nobody may wait for this process, so its supervisor gets to start another."""
        self._ward.give_up()
        stack, (task, task_id) = self._stack(), self._who()

        def say() -> None:
            self._log.error("loop_stalled", task=task, task_id=task_id, seconds=round(seconds, 1), stack=stack)
            self._ward.stalled()

        _aside(say)
        self._end(STALLED_EXIT)

    def _who(self) -> tuple[str | None, str | None]:
        """Name and id of the task whose code the loop runs, if it runs one's."""
        assert self._loop is not None, "start() set it"  # noqa: S101
        running = asyncio.current_task(self._loop)
        attempt = None if running is None else attempt_in(running) or self._ward.attempt_of(running)
        return (None, None) if attempt is None else (attempt.task_name, attempt.delivery.envelope.id)

    def _stack(self) -> str:
        """Where the loop's thread is: files, lines and names of functions, no values."""
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 - the documented way to another thread's frames
        if frame is None:
            return ""
        summary = traceback.StackSummary.extract(traceback.walk_stack(frame), limit=_FRAMES, lookup_lines=False)
        del frame  # what it refers to belongs to the task
        summary.reverse()
        return "".join(summary.format())


def attempt_in(running: asyncio.Task[Any]) -> Attempt | None:
    """The attempt that *running* belongs to, also as a task that the task's own code has started."""
    context = _context_of(running)
    return None if context is None else context.get(current_attempt)


def _context_of(running: asyncio.Task[Any]) -> Context | None:
    if sys.version_info >= (3, 12):
        return running.get_context()
    # Before 3.12 a task does not give its context away. The garbage collector knows it: asked once in a block, never else.
    return next((found for found in gc.get_referents(running) if isinstance(found, Context)), None)


def _aside(say: Callable[[], object]) -> None:
    """Call *say* on a thread that may hang: the blocked code may hold the lock of a log handler for ever."""
    saying = threading.Thread(target=say, name="chicory-watchdog-log", daemon=True)
    saying.start()
    saying.join(_SAYING_SECONDS)
