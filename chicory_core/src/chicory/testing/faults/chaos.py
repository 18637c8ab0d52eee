"""One long run under faults: workers are killed and frozen while thousands of tasks pass, and then everything is counted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from random import Random
from typing import TYPE_CHECKING, Any, final

from msgspec import Struct, field

from chicory.app import Chicory
from chicory.errors import BrokerError
from chicory.message import TaskState
from chicory.result import AsyncResult
from chicory.testing.clock import eventually
from chicory.testing.faults.invariants import SERVER_KILLED, Account, Audit, audit
from chicory.testing.faults.ledger import Ledger
from chicory.testing.faults.store_server import StoreServer
from chicory.testing.faults.workers import WorkerProcess, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from chicory.broker import QueueStats

__all__ = ["Fault", "Plan", "Verdict", "app_on", "run_chaos"]

_CHUNK = 100
_BACKLOG = 1500
"""Messages that wait at most: so that faults hit a system at work, from the first task to the last."""
_QUEUE = "default"
_LONG_LEASES = 1.6
_FROZEN_LEASES = (1.2, 3.0)
_DRAIN_WITHIN = 180.0
_STOP_WITHIN = 60.0
_ENDED_WITHIN = 10.0
_DAY = "86400"
_HEARTBEAT_TTL = 2.0
_UNKEPT = 1.0
"""Seconds that may pass from a task's end until a server that is killed has kept its settlement."""
_UNSETTLED = 0.05
"""Seconds that may pass from a task's end to its settlement."""


class Plan(Struct, frozen=True, kw_only=True):
    """What is to happen. The same *seed* gives the same tasks, and the same faults at the same tasks."""

    tasks: int = 5000
    workers: int = 3
    concurrency: int = 16
    kills: int = 5
    stops: int = 2
    server_kills: int = 0
    server_command: tuple[str, ...] = ()
    """Starts the store's server, which this run then kills, and starts again where its data are."""
    lease: float = 2.0
    long: float = 0.002
    """Share of the tasks that run for longer than a lease."""
    seed: int = 0
    settings: dict[str, str] = field(default_factory=dict)
    """Environment variables of the workers and of the producer, such as ``CHICORY_BROKER_URL``."""


@final
class Fault(Struct, frozen=True, kw_only=True):
    """One fault that happened: when (seconds from the begin), after how many accepted tasks, and what was in flight there."""

    at: float
    after: int
    what: str
    pid: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  after {self.after:>6} tasks  {self.what:<14} {self.pid:>7}  {self.in_flight} in flight"


@final
class Verdict(Struct, frozen=True, kw_only=True):
    """What came of a run."""

    plan: Plan
    timeline: list[Fault]
    audit: Audit
    seconds: float
    states: dict[str, int]
    slowest_redelivery: float | None
    """Seconds from a kill to the second run of what was in flight there for the first time.

    What dies again is under suspicion to kill its workers: such tasks wait for each other, and so run later.
    """

    @property
    def is_good(self) -> bool:
        return not self.audit.problems

    def __str__(self) -> str:
        plan = self.plan
        lines = [f"seed {plan.seed}: {plan.tasks} tasks, {plan.workers} workers of {plan.concurrency}, lease {plan.lease:g} s"]
        lines += [f"  {fault}" for fault in self.timeline]
        lines.append(f"  states: {', '.join(f'{count} {state}' for state, count in sorted(self.states.items()))}")
        if self.slowest_redelivery is not None:
            lines.append(f"  slowest second run of what was killed once: {self.slowest_redelivery:.1f} s")
        lines.append(f"  {self.seconds:.0f} s; {self.audit}")
        return "\n".join(lines)


async def run_chaos(plan: Plan, folder: Path, *, say: Callable[[str], object] = lambda _: None) -> Verdict:
    """Play *plan* in *folder*, where ledger and logs stay; *say* is told each fault as it happens.

    Raises:
        AssertionError: a worker did not start, or did not stop in good order.
    """
    ledger = Ledger(folder / "ledger.jsonl")
    settings = {
        "CHICORY_WORKER_LEASE_SECONDS": str(plan.lease),
        "CHICORY_WORKER_CONCURRENCY": str(plan.concurrency),
        "CHICORY_WORKER_HEARTBEAT_INTERVAL": "0.5",
        "CHICORY_WORKER_HEARTBEAT_TTL": str(_HEARTBEAT_TTL),
        "CHICORY_RESULT_TTL": _DAY,
    }
    workers = Workers(folder, ledger, {**settings, **plan.settings})
    server = StoreServer(plan.server_command, folder)
    try:
        await server.start()
        async with app_on(plan.settings) as app, app_on(plan.settings) as observer:
            return await _Run(plan, app, observer, workers, ledger, say, server).play()
    finally:
        workers.end()
        server.end()
        ledger.close()


def app_on(settings: Mapping[str, str]) -> Chicory:
    """A producer's app on the broker and backend that *settings* give to the workers; it knows no task's code."""
    broker, backend = settings["CHICORY_BROKER_URL"], settings.get("CHICORY_BACKEND_URL")
    return Chicory(broker=broker) if backend is None else Chicory(broker=broker, backend=backend)


@final
class _Run:
    def __init__(
        self,
        plan: Plan,
        app: Chicory,
        observer: Chicory,
        workers: Workers,
        ledger: Ledger,
        say: Callable[[str], object],
        server: StoreServer,
    ) -> None:
        self._server = server
        self._plan, self._workers, self._ledger, self._say = plan, workers, ledger, say
        self._app, self._observer = app, observer  # reads must not wait behind a publish that waits
        self._rng = Random(plan.seed)
        self._live: list[WorkerProcess] = []
        self._frozen: set[asyncio.Task[None]] = set()
        self._timeline: list[Fault] = []
        self._accepted: list[str] = []
        self._unsure: list[str] = []
        self._at_most_once: set[str] = set()
        self._probes: list[asyncio.Future[None]] = []
        self._kills: list[tuple[float, set[str]]] = []
        self._began = time.monotonic()

    async def play(self) -> Verdict:
        plan = self._plan
        self._live = await self._workers.start(plan.workers)
        faults = self._schedule()
        while (missing := plan.tasks - len(self._accepted) - len(self._unsure)) > 0:
            await self._publish(min(_CHUNK, missing))
            while faults and faults[0][0] <= len(self._accepted):
                await self._do(faults.pop(0)[1])
            await self._until_room()
        await asyncio.gather(*self._frozen, *self._probes)
        left = await self._drained()
        await self._stop()
        return await self._judge(left)

    # --- load --------------------------------------------------------------------------------------

    async def _publish(self, count: int) -> None:
        answers = await asyncio.gather(*(self._send() for _ in range(count)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, BrokerError):
                raise answer

    async def _send(self) -> None:
        """One of the mix: 3 % at most once, 1 % hopeless, 5 % tried again, 10 % later, few long, the others at once."""
        name, arguments, options = self._draw()
        task_id = f"t{len(self._accepted) + len(self._unsure)}-{self._rng.getrandbits(48):012x}"
        if name == "faults.once":
            self._at_most_once.add(task_id)
        try:
            await self._app.send_task(name, arguments, task_id=task_id, **options)
        except BrokerError:
            self._unsure.append(task_id)
            raise
        self._accepted.append(task_id)

    def _draw(self) -> tuple[str, list[Any], dict[str, Any]]:
        draw = self._rng.random()
        if draw < 0.03:
            return "faults.once", [self._rng.choice([0.0, 0.02])], {}
        if draw < 0.04:
            return "faults.hopeless", [], {}
        if draw < 0.09:
            return "faults.flaky", [self._rng.randint(1, 3)], {}
        if draw > 1 - self._plan.long:
            return "faults.work", [_LONG_LEASES * self._plan.lease], {}
        options = {"countdown": self._rng.uniform(0.1, 3.0)} if draw < 0.19 else {}
        return "faults.work", [self._rng.choice([0.0, 0.0, 0.005, 0.05])], options

    async def _until_room(self) -> None:
        await eventually(self._has_room, within=_DRAIN_WITHIN)

    async def _has_room(self) -> bool:
        stats = await self._stats()
        return stats is not None and stats.ready <= _BACKLOG

    async def _stats(self) -> QueueStats | None:
        """None while a process that stands still keeps the store from answering."""
        try:
            return await self._observer.broker.stats(_QUEUE)
        except BrokerError:
            return None

    # --- faults ------------------------------------------------------------------------------------

    def _schedule(self) -> list[tuple[int, str]]:
        """After how many accepted tasks what happens."""
        plan = self._plan
        kinds = ["kill"] * plan.kills + ["stop"] * plan.stops + ["server"] * plan.server_kills
        self._rng.shuffle(kinds)
        first, last = plan.tasks // 20, plan.tasks - plan.tasks // 20
        return list(zip(sorted(self._rng.randint(first, last) for _ in kinds), kinds, strict=True))

    async def _do(self, kind: str) -> None:
        if kind == "server":
            await self._kill_server()
            return
        await eventually(lambda: len(self._live) > 1, within=_DRAIN_WITHIN)
        victim = self._live.pop(self._rng.randrange(len(self._live)))
        await asyncio.sleep(self._rng.uniform(0.0, 0.05))
        if kind == "kill":
            victim.kill()
            in_flight = await self._in_flight({victim.pid})
            self._kills.append((time.monotonic(), in_flight))
            self._note("SIGKILL", victim, in_flight)
            self._live += await self._workers.start(1)
            return
        victim.freeze()
        frozen_at = time.monotonic()
        in_flight = await self._in_flight({victim.pid})
        is_stuck = await self._is_stuck()
        seconds = self._rng.uniform(*_FROZEN_LEASES) * self._plan.lease
        self._note(f"SIGSTOP {seconds:.1f} s", victim, in_flight)
        self._frozen.add(asyncio.create_task(self._thaw(victim, seconds, in_flight, frozen_at if is_stuck else None)))

    async def _kill_server(self) -> None:
        """All that was started and not settled may be handed out again; the load goes on while the server is away."""
        pid = self._server.kill()
        killed_at = time.monotonic()
        self._ledger.note(SERVER_KILLED, pid=pid)
        await asyncio.sleep(self._rng.uniform(0.1, 0.5))
        await self._server.start()
        in_flight = self._unsettled(killed_at - _UNKEPT + _UNSETTLED)
        fault = Fault(
            at=killed_at - self._began, after=len(self._accepted), what="server killed", pid=pid, in_flight=len(in_flight)
        )
        self._timeline.append(fault)
        self._say(str(fault))

    async def _is_stuck(self) -> bool:
        """Whether the process that stands still keeps the others from writing: it may be frozen in a transaction."""
        probe = asyncio.ensure_future(self._publish(1))
        done, _ = await asyncio.wait([probe], timeout=self._plan.lease / 4)
        if not done:
            self._probes.append(probe)
        return not done

    async def _thaw(self, victim: WorkerProcess, seconds: float, counted: set[str], stuck_since: float | None) -> None:
        await asyncio.sleep(seconds)
        if stuck_since is not None:  # nobody could renew a lease, or settle, meanwhile
            self._note("store was stuck", victim, self._unsettled(stuck_since) - counted)
        victim.thaw()
        self._live.append(victim)

    async def _in_flight(self, pids: set[int]) -> set[str]:
        """Tasks that *pids* have started, and that have not ended for their store."""
        started = {fact.task_id for fact in self._ledger.facts("start") if fact.pid in pids}
        states = await self._states(started - self._at_most_once)
        return {task_id for task_id, state in states.items() if not state.is_terminal}

    def _unsettled(self, since: float) -> set[str]:
        """What any worker has started, and did not end before *since*. The store that is stuck cannot be asked."""
        started: set[str] = set()
        for fact in self._ledger.facts("start", "end", "failed", "cancelled"):
            if fact.kind == "start":
                started.add(fact.task_id)
            elif fact.at < since - _UNSETTLED:
                started.discard(fact.task_id)
        return started

    def _note(self, what: str, victim: WorkerProcess, in_flight: set[str]) -> None:
        fault = Fault(
            at=time.monotonic() - self._began, after=len(self._accepted), what=what, pid=victim.pid, in_flight=len(in_flight)
        )
        self._timeline.append(fault)
        self._say(str(fault))

    # --- the end -----------------------------------------------------------------------------------

    async def _drained(self) -> int:
        """How many messages are left once all should be gone; -1 if the store does not say."""
        until = time.monotonic() + _DRAIN_WITHIN
        while True:
            stats = await self._stats()
            left = stats.ready + stats.delayed + stats.running if stats is not None else -1
            if not left or time.monotonic() > until:
                return left
            await asyncio.sleep(0.1)

    async def _stop(self) -> None:
        for worker in self._live:
            worker.signal(signal.SIGTERM)
        for worker in self._live:
            assert await worker.ended(_STOP_WITHIN) == 0, f"a worker did not stop in good order:\n{worker.log()[-4000:]}"
        with contextlib.suppress(AssertionError):  # the audit finds what has not ended
            await eventually(self._are_ended, within=_ENDED_WITHIN)

    async def _are_ended(self) -> bool:
        """Whether what ran at most once in a killed worker has been ended, as any worker's clean-up would."""
        assert self._app.backend is not None, "the audit asks for states: give a backend"
        await self._app.backend.cleanup_stale_clients(stale_seconds=_HEARTBEAT_TTL)
        return all(state.is_terminal for state in (await self._states(self._at_most_once)).values())

    async def _judge(self, left: int) -> Verdict:
        states = await self._states(self._accepted)
        facts = self._ledger.facts()
        account = Account(
            accepted=self._accepted,
            states=states,
            unsure=self._unsure,
            at_most_once=frozenset(self._at_most_once),
            results=await self._results(facts, states),
            in_flight=sum(fault.in_flight for fault in self._timeline),
            lease=self._plan.lease,
            left=left,
            fenced=self._app.broker.capabilities.fenced,
        )
        counted: dict[str, int] = {}
        for state in states.values():
            counted[state.value] = counted.get(state.value, 0) + 1
        return Verdict(
            plan=self._plan,
            timeline=self._timeline,
            audit=audit(facts, account),
            seconds=time.monotonic() - self._began,
            states=counted,
            slowest_redelivery=self._slowest(facts),
        )

    async def _states(self, ids: Iterable[str]) -> dict[str, TaskState]:
        """What the backend says of each, where it says anything."""
        wanted = list(ids)
        found: dict[str, TaskState] = {}
        for start in range(0, len(wanted), _CHUNK * 5):
            part = wanted[start : start + _CHUNK * 5]
            answers = await asyncio.gather(
                *(AsyncResult[Any](i, self._observer.backend).state() for i in part), return_exceptions=True
            )
            found |= {i: state for i, state in zip(part, answers, strict=True) if isinstance(state, TaskState)}
        return found

    async def _results(self, facts: list[Any], states: dict[str, TaskState]) -> dict[str, object]:
        """The results of those that ran more than once."""
        seen: set[str] = set()
        again: set[str] = set()
        for fact in facts:
            if fact.kind == "start" and fact.detail == "faults.work":
                (again if fact.task_id in seen else seen).add(fact.task_id)
        ended = [i for i in again if states.get(i) is TaskState.SUCCESS]
        values = await asyncio.gather(*(AsyncResult[Any](i, self._observer.backend).get(timeout=5) for i in ended))
        return dict(zip(ended, values, strict=True))

    def _slowest(self, facts: list[Any]) -> float | None:
        taken: list[float] = []
        for at, in_flight in self._kills:
            starts: dict[str, list[float]] = {}
            for fact in facts:
                if fact.kind == "start" and fact.task_id in in_flight:
                    starts.setdefault(fact.task_id, []).append(fact.at - at)
            taken += [of_task[1] for of_task in starts.values() if len(of_task) > 1 and of_task[0] < 0 < of_task[1]]
        return max(taken, default=None)
