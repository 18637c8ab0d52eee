"""The promises, checked against what the ledger says really happened.

The words for what is wrong, lost and unexpected, are those of Jepsen's queue checker (jepsen.checker/total-queue).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, final

from msgspec import Struct, field

from chicory.message import TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chicory.testing.faults.ledger import Fact

__all__ = ["SERVER_KILLED", "Account", "Audit", "Run", "audit"]

SERVER_KILLED = "server_killed"
"""The kind of fact that says so."""

_SHOWN = 5
_WAKING = 0.1
"""Seconds after which a worker that wakes knows what it has lost."""
_TELLING = 1.0
"""Seconds that a worker under load may take to settle a task that has ended."""
_MARGIN = 2.5
"""Seconds that a worker which was frozen gets, once it wakes, to stop what it has lost, on a busy machine."""


@final
class Run(Struct, kw_only=True):
    """One start of a task, and its end if it had one: ``end``, ``failed``, ``cancelled``, or None."""

    task_id: str
    pid: int
    retries: int
    started_at: float
    ended_at: float | None = None
    how: str | None = None


@final
class Account(Struct, frozen=True, kw_only=True):
    """What was done to a system, and what it says about each task now."""

    accepted: Sequence[str]
    """Ids whose publishing was confirmed."""
    states: Mapping[str, TaskState]
    """What the backend says of each id; of those that it does not know, nothing."""
    unsure: Sequence[str] = ()
    """Ids whose publishing raised: nobody knows whether they are accepted."""
    at_most_once: frozenset[str] = frozenset()
    results: Mapping[str, object] = field(default_factory=dict)
    """What ``faults.work`` returned: the pid that did it."""
    in_flight: int = 0
    """Tasks that had started and not ended for their store, in each process that was killed or frozen, at that moment."""
    lease: float = 30.0
    left: int = 0
    """Messages that are still in their queues."""
    fenced: bool = True
    """The store knows who holds a message. One that does not may forget it when its server is killed, and hand it out again."""


@final
class Audit(Struct, kw_only=True):
    """What came of it. *problems* is empty if every promise was kept."""

    accepted: int
    runs: int
    extra_runs: int
    in_flight: int
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "all promises kept" if not self.problems else "\n".join(("BROKEN", *(f"  {p}" for p in self.problems)))
        extra = f"{self.extra_runs} extra, {self.in_flight} in flight at the faults"
        return f"{self.accepted} accepted, {self.runs} runs ({extra}): {verdict}"


def audit(facts: Iterable[Fact], account: Account) -> Audit:
    """Check the seven invariants of the fault suite; each that is broken is one line, with some ids."""
    facts = list(facts)
    runs, ends_of_processes = _runs_of(facts)
    upsets = [] if account.fenced else [fact.at for fact in facts if fact.kind == SERVER_KILLED]
    by_task: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_task[run.task_id].append(run)
    extra = sum(len(of_task) - len({run.retries for run in of_task}) for of_task in by_task.values())
    result = Audit(accepted=len(account.accepted), runs=len(runs), extra_runs=extra, in_flight=account.in_flight)
    for name, broken in (
        ("I1 lost: accepted, and never started", _never_started(by_task, account)),
        ("I1 stuck: accepted, and not ended", _not_ended(account)),
        ("I3 overlapping runs", _overlapping(by_task, ends_of_processes, account.lease, upsets)),
        ("I4 the result of a run that was not the last one", _outdated(by_task, account, ends_of_processes, upsets)),
        ("I5 at most once, and started again", [i for i in account.at_most_once if len(by_task.get(i, ())) > 1]),
        ("I6 one id published twice, and run twice", _doubled(by_task, account)),
    ):
        if broken:
            result.problems.append(f"{name}: {len(broken)} ({', '.join(map(str, broken[:_SHOWN]))})")
    if extra > account.in_flight:
        result.problems.append(f"I2 {extra} extra runs, and {account.in_flight} tasks in flight at the faults")
    if account.left:
        result.problems.append(f"I7 {account.left} messages are left in the queues")
    return result


class _Frozen(Struct):
    """When a process stood still, and when it was killed."""

    spans: list[tuple[float, float]] = field(default_factory=list)
    killed_at: float = float("inf")


def _runs_of(facts: Iterable[Fact]) -> tuple[list[Run], dict[int, _Frozen]]:
    runs: list[Run] = []
    open_runs: dict[tuple[str, int], Run] = {}
    processes: dict[int, _Frozen] = defaultdict(_Frozen)
    frozen_at: dict[int, float] = {}
    for fact in facts:
        key = (fact.task_id, fact.pid)
        if fact.kind == "start":
            run = Run(task_id=fact.task_id, pid=fact.pid, retries=fact.retries, started_at=fact.at)
            runs.append(run)
            open_runs[key] = run
        elif fact.kind in ("end", "failed", "cancelled") and key in open_runs:
            run = open_runs.pop(key)
            run.ended_at, run.how = fact.at, fact.kind
        elif fact.kind == "frozen":
            frozen_at[fact.pid] = fact.at
        elif fact.kind == "thawed":
            processes[fact.pid].spans.append((frozen_at.pop(fact.pid, fact.at), fact.at))
        elif fact.kind == "killed":
            processes[fact.pid].killed_at = fact.at
            if fact.pid in frozen_at:
                processes[fact.pid].spans.append((frozen_at.pop(fact.pid), fact.at))
    return runs, processes


def _never_started(by_task: Mapping[str, list[Run]], account: Account) -> list[str]:
    """An at-most-once task may be lost between its removal and its start: its record says so, which `_not_ended` checks."""
    return [task_id for task_id in account.accepted if task_id not in by_task and task_id not in account.at_most_once]


def _not_ended(account: Account) -> list[str]:
    known = ((task_id, account.states.get(task_id)) for task_id in account.accepted)
    return [f"{task_id} is {state and state.value}" for task_id, state in known if state is None or not state.is_terminal]


def _overlapping(
    by_task: Mapping[str, list[Run]], processes: Mapping[int, _Frozen], lease: float, upsets: Sequence[float]
) -> list[str]:
    found = []
    for task_id, runs in by_task.items():
        ordered = sorted(runs, key=lambda run: run.started_at)
        for first, second in pairwise(ordered):
            process = processes.get(first.pid, _Frozen())
            until = min(first.ended_at if first.ended_at is not None else float("inf"), process.killed_at)
            other = processes.get(second.pid, _Frozen())
            if until <= second.started_at or _is_of_an_upset(first, second, upsets, lease):
                continue
            if not _is_excused(first, second, until, process, other, lease):
                found.append(f"{task_id}: in {first.pid} until {until:.2f}, in {second.pid} from {second.started_at:.2f}")
    return found


def _is_excused(first: Run, second: Run, until: float, process: _Frozen, other: _Frozen, lease: float) -> bool:
    """One of them ran in a process that stood still for longer than its lease could live, and stopped soon after it woke."""
    went_on = any(
        end - begin >= lease / 2 and begin <= second.started_at and first.started_at <= end and until <= end + _MARGIN
        for begin, end in process.spans
    )
    began_late = any(
        end - begin >= lease / 2 and end <= second.started_at and (second.ended_at or second.started_at) <= end + _MARGIN
        for begin, end in other.spans
    )
    return went_on or began_late


def _began_on_waking(run: Run, process: _Frozen, lease: float) -> bool:
    """It was about to start when its process was frozen, for longer than its lease could live."""
    return any(end - begin >= lease / 2 and end <= run.started_at <= end + _WAKING for begin, end in process.spans)


def _is_of_an_upset(first: Run, second: Run, upsets: Sequence[float], lease: float) -> bool:
    """The server was killed while its store did not know of a delivery for sure, and handed the message out once more.

    What was delivered before may start up to a lease later, and so may what is delivered after the server's return.
    """
    return any(first.started_at <= at + lease and at <= second.started_at <= at + 2 * lease + _MARGIN for at in upsets)


def _was_forgotten(first: Run, second: Run, upsets: Sequence[float], lease: float) -> bool:
    """The server was killed about when *first* was settled, and then knew no more of it: its message came again, at some time.

    What it ended with stands all the same, for its record was kept.
    """
    return any(first.started_at - lease <= at <= second.started_at and first.started_at <= at + lease for at in upsets)


def _told_nobody(run: Run, process: _Frozen) -> bool:
    """Its process was killed about when it ended: a store without a fence then takes the word of one that was frozen."""
    return run.started_at <= process.killed_at <= (run.ended_at or process.killed_at) + _TELLING


def _outdated(
    by_task: Mapping[str, list[Run]], account: Account, processes: Mapping[int, _Frozen], upsets: Sequence[float]
) -> list[str]:
    """Results of ``faults.work`` name the process that gave them; that of a run that was overtaken must not stand.

    A worker that wakes may start what it had received before it was frozen, and is told at once that it has lost it: such a
    run is cancelled, and overtakes nothing. Without a fence it may be over before it can be cancelled; or it was handed to
    that worker anew, and has won.
    """
    found = []
    for task_id, pid in account.results.items():
        runs = [run for run in by_task.get(task_id, []) if run.how != "cancelled"]
        runs = [
            run
            for run in runs
            if account.fenced or run.pid == pid or not _began_on_waking(run, processes.get(run.pid, _Frozen()), account.lease)
        ]
        last = max(runs, key=lambda run: run.started_at, default=None)
        if last is None or last.pid == pid:
            continue
        if not account.fenced and _told_nobody(last, processes.get(last.pid, _Frozen())):
            continue
        if not any(_was_forgotten(run, last, upsets, account.lease) for run in runs if run.pid == pid):
            found.append(f"{task_id} is of {pid}")
    return found


def _doubled(by_task: Mapping[str, list[Run]], account: Account) -> list[str]:
    """A publish that nobody is sure of is one task, or none; without a kill nothing else explains a second run."""
    if account.in_flight:
        return []
    runs = ((task_id, by_task.get(task_id, [])) for task_id in account.unsure)
    return [task_id for task_id, of_task in runs if len(of_task) > len({run.retries for run in of_task})]
