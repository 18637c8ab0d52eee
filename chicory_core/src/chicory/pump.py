"""Moves deliveries through a worker: takes free slots, receives for them, runs each through the onion, settles."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

from msgspec.structs import replace

from chicory.clock import within
from chicory.errors import BackendError, BrokerError, LeaseLost, WorkerLost
from chicory.faultpoints import FaultPoint, reach
from chicory.message import Settlement
from chicory.middleware import failed
from chicory.suspects import choose, is_suspect, put_back
from chicory.verdict import former_end, hand_back, record_of, settlement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from collections.abc import Set as AbstractSet

    from chicory.backend import Joined
    from chicory.backoff import Backoff
    from chicory.broker import Broker
    from chicory.clock import Clock
    from chicory.config import WorkerConfig
    from chicory.execution import Execution
    from chicory.lease import LeaseKeeper
    from chicory.message import Delivery, ResultRecord
    from chicory.middleware import Attempt, Next, Outcome
    from chicory.outbox import Outbox
    from chicory.verdict import Keeping

__all__ = ["Pump", "Watch"]

T = TypeVar("T")

_RECEIVE_WAIT = 5.0
_PACE_WINDOW = 0.1
_STALL = 1.0
"""Seconds without any task ending after which what was received ahead goes back."""
_OUTBOX_FACTOR = 4
_SUSPECT_STEP = 0.1
"""Seconds from one suspect that is put back to the next: they come again one by one."""
_CANCEL_WAIT = 2.0
"""Seconds that cancelled tasks get to react; those that swallow it are left to the end of the process."""


@final
class Pace:
    """How many tasks were finished in the last tenth of a second, about: what is worth receiving ahead."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._now = self._before = 0
        self.ended = 0
        """Tasks that have ended since the start."""

    def count(self) -> None:
        self._now += 1
        self.ended += 1

    def recent(self) -> int:
        elapsed = self._clock.monotonic() - self._since
        if elapsed >= _PACE_WINDOW:
            self._before = int(self._now * _PACE_WINDOW / elapsed)
            self._now = 0
            self._since += elapsed
        return max(self._before, self._now)


class _Running:
    """One delivery in work: its runner, and why it was cancelled, if it was."""

    __slots__ = ("attempt", "reason", "runner")

    def __init__(self, runner: asyncio.Task[None]) -> None:
        self.runner = runner
        self.attempt: Attempt | None = None
        self.reason: str | None = None


class Watch(Protocol):
    """Whom the pump tells about its work. Each call is one change of state."""

    def task_started(self, attempt: Attempt) -> None: ...
    def task_ended(self, attempt: Attempt, outcome: Outcome) -> None: ...
    def lease_lost(self, delivery: Delivery) -> None: ...
    def broker_lost(self, error: Exception) -> None: ...
    def broker_found(self) -> None: ...


@final
class Pump:
    """One worker's flow of work. `run` ends only by cancellation or a defect; `drain` stops it in good order."""

    def __init__(
        self,
        *,
        broker: Broker,
        joined: Joined,
        execution: Execution,
        chain: Next,
        outbox: Outbox,
        leases: LeaseKeeper,
        clock: Clock,
        backoff: Backoff,
        config: WorkerConfig,
        keeping: Keeping | None,
        watch: Watch,
    ) -> None:
        self._broker, self._joined = broker, joined
        self._execution, self._chain = execution, chain
        self._outbox, self._leases = outbox, leases
        self._clock, self._backoff = clock, backoff
        self._config, self._keeping, self._watch = config, keeping, watch
        self._pace = Pace(clock)
        self._running: dict[str, _Running] = {}
        self._waiting: deque[Delivery] = deque()
        self._buried: dict[str, ResultRecord] = {}
        self._suspect: str | None = None
        self._refill_at = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._defect: asyncio.Future[None] | None = None
        self._group: asyncio.TaskGroup | None = None
        self._receiver: asyncio.Task[None] | None = None
        self._is_draining = False
        self._is_watching_stall = False

    @property
    def active(self) -> int:
        """Tasks running now."""
        return len(self._running)

    def attempt_of(self, runner: asyncio.Task[Any]) -> Attempt | None:
        """The attempt that *runner* works on. From any thread."""
        return next((running.attempt for running in list(self._running.values()) if running.runner is runner), None)

    async def run(self) -> None:
        """Receive and run until `drain`; a defect in receiving, or in running one delivery, is raised."""
        loop = asyncio.get_running_loop()
        self._loop, self._defect = loop, loop.create_future()
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._receiver = group.create_task(self._receive_for_ever(), name="receiver")
                await self._defect
        finally:
            for running in list(self._running.values()):
                self._cancel(running, "shutdown")

    def make_room(self) -> None:
        """The outbox has room again."""
        self._fill()

    # --- stopping ----------------------------------------------------------------------------------

    async def drain(self, seconds: float, hurry: asyncio.Event) -> None:
        """Stop receiving, put back what has not started, let what runs finish within *seconds*, then cancel and put it back.

        Setting *hurry* ends the waiting early. Returns when nothing runs, or nothing that runs reacts to being cancelled.
        """
        self._is_draining = True
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.wait([self._receiver])
        reach(FaultPoint.IN_DRAIN)
        self._put_back_waiting()
        await self._until_idle(seconds, hurry)
        for running in list(self._running.values()):
            self._cancel(running, "shutdown")
        await self._until_idle(_CANCEL_WAIT, asyncio.Event())

    async def _until_idle(self, seconds: float, hurry: asyncio.Event) -> None:
        if not self._running:
            return
        waiters = [asyncio.ensure_future(event.wait()) for event in (self._idle, hurry)]
        with contextlib.suppress(TimeoutError):
            await within(self._clock, seconds, asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED))
        for waiter in waiters:
            waiter.cancel()

    def lose(self, delivery: Delivery) -> None:
        """The lease of *delivery* is lost: stop its task, settle nothing."""
        if (running := self._running.get(delivery.receipt)) is not None:
            self._cancel(running, "lease_lost")
            return
        if delivery in self._waiting:
            self._waiting.remove(delivery)
            self._buried.pop(delivery.receipt, None)
        self._watch.lease_lost(delivery)

    def _cancel(self, running: _Running, reason: str) -> None:
        if running.reason is None:
            running.reason = reason
            if running.attempt is not None:
                running.attempt.stopped_for = reason
            running.runner.cancel()

    # --- receiving ---------------------------------------------------------------------------------

    async def _receive_for_ever(self) -> None:
        while True:
            limit = await self._wanted()
            deliveries = await self._persist(partial(self._broker.receive, self._config.queues, limit, _RECEIVE_WAIT))
            for delivery in deliveries:
                self._leases.hold(delivery)
            if deliveries:
                reach(FaultPoint.AFTER_RECEIVE)
            try:
                finished = await self._persist(partial(self._joined.finished, deliveries))
                deliveries = await self._put_back_suspects(deliveries)
            except asyncio.CancelledError:
                for delivery in deliveries:
                    self._outbox.settle(hand_back(delivery))
                raise
            self._take(deliveries, finished)

    async def _persist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """The answer to *ask*, asked until it comes."""
        while True:
            try:
                answer = await ask()
            except (BrokerError, BackendError) as error:
                if self._backoff.tries == 0:
                    self._watch.broker_lost(error)
                await self._backoff.pause()
            else:
                if self._backoff.tries:
                    self._backoff.reset()
                    self._watch.broker_found()
                return answer

    async def _wanted(self) -> int:
        """How many deliveries to ask for: the free slots, and as many more as soon will be.

        Asks once half of what was received ahead has started: a few batches cost less than many single messages.
        """
        while True:
            self._room.clear()
            ahead = min(self._config.prefetch, self._pace.recent())
            self._refill_at = ahead // 2
            wanted = self._config.concurrency + ahead - len(self._running) - len(self._waiting)
            if wanted > 0 and len(self._waiting) <= self._refill_at and not self._is_congested():
                return wanted
            await self._room.wait()

    def _is_congested(self) -> bool:
        return self._outbox.waiting > self._config.concurrency * _OUTBOX_FACTOR + self._config.prefetch

    def _take(self, deliveries: list[Delivery], finished: Mapping[str, ResultRecord] | AbstractSet[str]) -> None:
        records = finished if isinstance(finished, Mapping) else {}
        for delivery in deliveries:
            record = records.get(delivery.receipt)
            if record is not None and record.buries(delivery.envelope.hop):
                self._buried[delivery.receipt] = record
            elif delivery.receipt in finished:
                self._outbox.settle(Settlement(delivery=delivery))  # its task has ended: only the message was left
                continue
            self._waiting.append(delivery)
        self._start()
        if self._waiting and not self._is_watching_stall:
            self._is_watching_stall = True
            self._in_group(self._put_back_stalled())

    async def _put_back_stalled(self) -> None:
        """Put back what was received ahead once no task has ended for a while: others may be free to run it."""
        ended = -1
        while self._waiting and ended != self._pace.ended:
            ended = self._pace.ended
            await self._clock.sleep(_STALL)
        self._is_watching_stall = False
        self._put_back_waiting()

    def _put_back_waiting(self) -> None:
        for delivery in self._waiting:
            self._outbox.settle(hand_back(delivery))
        self._waiting.clear()
        self._buried.clear()

    async def _put_back_suspects(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Keep at most one suspect in this process; returns once the others are safely back with the broker."""
        if not self._broker.capabilities.delayed:
            return deliveries  # put back without delay they would come again at once
        kept, others = choose(deliveries, may_keep=self._suspect is None)
        if others:
            now = self._clock.now()
            step = _SUSPECT_STEP if self._suspect is None else _SUSPECT_STEP * 10
            await self._outbox.settled([put_back(d, now + timedelta(seconds=step * n)) for n, d in enumerate(others, start=1)])
        suspect = next((d for d in kept if is_suspect(d)), None)
        if suspect is not None:
            self._suspect = suspect.receipt
        return kept

    # --- running -----------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what waits, as far as there are slots."""
        if self._is_draining or self._loop is None:
            return
        while len(self._running) < self._config.concurrency and not self._is_congested():
            if not self._waiting:
                break
            delivery = self._waiting.popleft()
            # Not in a TaskGroup: its bookkeeping costs an eighth of a small task; `_run_one` lets nothing escape.
            self._running[delivery.receipt] = _Running(self._loop.create_task(self._run_one(delivery)))
            self._idle.clear()
        if len(self._waiting) <= self._refill_at:
            self._room.set()

    async def _run_one(self, delivery: Delivery) -> None:
        running = self._running[delivery.receipt]
        try:
            # Looked at here, and not before it got its turn: this process may have stood still in between.
            if not self._leases.is_ours(delivery.receipt):
                self._forgo(delivery)
                return
            attempt = running.attempt = self._execution.open(delivery)
            if self._buried and (record := self._buried.pop(delivery.receipt, None)) is not None:
                attempt.ended = former_end(record)
            self._watch.task_started(attempt)
            outcome = await self._chain(attempt)
            self._settle(attempt, outcome)
        except asyncio.CancelledError as error:
            self._after_cancel(running, delivery, error)
        except BaseException as error:  # noqa: BLE001 - nothing of the kind is expected: the worker ends, and says so
            if self._defect is not None and not self._defect.done():
                self._defect.set_exception(error)
        finally:
            self._free(delivery)

    def _forgo(self, delivery: Delivery) -> None:
        """Its lease has ended before it started: somebody else may run it already."""
        self._leases.release(delivery.receipt)
        self._buried.pop(delivery.receipt, None)
        self._watch.lease_lost(delivery)

    def _free(self, delivery: Delivery) -> None:
        del self._running[delivery.receipt]
        if self._suspect == delivery.receipt:
            self._suspect = None
        self._pace.count()
        if not self._running:
            self._idle.set()
        self._fill()

    def _fill(self) -> None:
        if self._waiting:
            self._start()
        else:
            self._room.set()

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        if isinstance(outcome.error, LeaseLost):
            self._watch.lease_lost(attempt.delivery)
            return
        now = self._clock.now()
        self._watch.task_ended(attempt, outcome)
        if attempt.settled:
            if self._keeping is not None:
                self._outbox.record(record_of(attempt, outcome, now=now, keeping=self._keeping))
            return
        made = settlement(attempt, outcome, now=now, keeping=self._keeping)
        if not self._broker.capabilities.delayed and any(envelope.due for envelope in made.publish):
            self._in_group(self._settle_when_due(made, outcome.delay))
            return
        self._outbox.settle(made)

    def _in_group(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None, "nothing runs outside of run()"  # noqa: S101
        self._group.create_task(work)

    async def _settle_when_due(self, made: Settlement, delay: float) -> None:
        """For a broker that cannot hold a message back: keep the delivery under its lease until what follows it is due."""
        try:
            await self._clock.sleep(delay)
        finally:  # on drain too: better early than late by a lease
            self._outbox.settle(replace(made, publish=tuple(replace(envelope, due=None) for envelope in made.publish)))

    def _after_cancel(self, running: _Running, delivery: Delivery, error: asyncio.CancelledError) -> None:
        attempt, reason = running.attempt, running.reason
        if reason == "lease_lost":
            self._leases.release(delivery.receipt)
            self._watch.lease_lost(delivery)
        elif attempt is not None and attempt.settled and (reason or running.runner.cancelling()):
            # It ran at most once, and was stopped: it must not start again, and nobody else can say how it ended.
            self._settle(attempt, failed(WorkerLost(attempt.worker_id), final=True))
        elif attempt is not None and reason is None and not running.runner.cancelling():
            self._settle(attempt, failed(error))  # nobody cancelled it: the task's own code raised that
        else:
            self._outbox.settle(hand_back(delivery))
