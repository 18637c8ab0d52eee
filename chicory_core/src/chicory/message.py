"""The values that travel: frozen, keyword-only, changed only by ``msgspec.structs.replace``.

Those of which there is one per message are kept from the garbage collector (``gc=False``): they cannot be part of a cycle.
"""

from __future__ import annotations

import os
import time
from datetime import datetime
from enum import StrEnum
from typing import Any, final

from msgspec import Struct, field

__all__ = [
    "DEFAULT_QUEUE",
    "BackendType",
    "BrokerType",
    "Delivery",
    "DeliveryMode",
    "Envelope",
    "Event",
    "ResultRecord",
    "Settled",
    "Settlement",
    "TaskMessage",
    "TaskResult",
    "TaskState",
    "ValidationMode",
    "WorkerStats",
    "new_id",
]

DEFAULT_QUEUE = "default"


def new_id() -> str:
    """A fresh task id: UUID version 7 as text (RFC 9562, section 5.7), so that ids sort by the time they were made.

    >>> len(new_id()), new_id()[14]
    (36, '7')
    """
    random = os.urandom(10).hex()
    time_part = (time.time_ns() // 1_000_000).to_bytes(6, "big").hex()
    return f"{time_part[:8]}-{time_part[8:]}-7{random[:3]}-{_VARIANT[random[3]]}{random[4:7]}-{random[7:19]}"


_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The two bits that say which kind of UUID it is, over whatever a random digit was."""


class TaskState(StrEnum):
    """Where a task stands. The value is the name."""

    PENDING = "PENDING"
    STARTED = "STARTED"
    RETRY = "RETRY"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    DEAD_LETTERED = "DEAD_LETTERED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def is_terminal(self) -> bool:
        """Nothing follows, unless somebody replays the task."""
        return self not in _OPEN


_OPEN = frozenset({TaskState.PENDING, TaskState.STARTED, TaskState.RETRY})


class BrokerType(StrEnum):
    """Names of brokers that plugins of this project offer; every other offered name works as a plain string."""

    REDIS = "redis"
    NATS = "nats"
    SQLITE = "sqlite"
    MEMORY = "memory"


class BackendType(StrEnum):
    """Names of result backends that plugins of this project offer."""

    REDIS = "redis"
    NATS = "nats"
    SQLITE = "sqlite"
    MEMORY = "memory"


class DeliveryMode(StrEnum):
    """What may happen to a task whose worker dies."""

    AT_LEAST_ONCE = "at_least_once"
    """It runs again: every accepted task is completed, some more than once."""
    AT_MOST_ONCE = "at_most_once"
    """It never starts twice: some accepted tasks are not completed."""


class ValidationMode(StrEnum):
    """What is checked against a task's annotations."""

    NONE = "none"
    INPUTS = "inputs"
    OUTPUTS = "outputs"
    STRICT = "strict"

    def __init__(self, value: str) -> None:
        self.checks_inputs = value in ("inputs", "strict")
        self.checks_outputs = value in ("outputs", "strict")


@final
class TaskMessage(Struct, frozen=True, kw_only=True, gc=False):
    """One call of a task.

    ``retries`` counts the tries that failed so far (0 at first). ``eta`` is when it may start, ``expires`` when it may not
    start any more. ``priority`` runs from 0 (default) to 9 (first).
    """

    id: str = field(default_factory=new_id)
    name: str
    args: list[Any] | tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    queue: str = DEFAULT_QUEUE
    retries: int = 0
    eta: datetime | None = None
    priority: int = 0
    expires: datetime | None = None
    headers: dict[str, str] = field(default_factory=dict)
    enqueued_at: datetime | None = None
    first_failure_at: datetime | None = None
    last_error: str | None = None


@final
class Envelope(Struct, frozen=True, kw_only=True, gc=False):
    """What a broker carries without reading it: where it goes, when, and the document's bytes.

    ``hop`` is 0 at first and grows at every republish of the same id (retry, defer, hand-back, replay, dead letter); it
    never resets. Of two envelopes with one id the higher hop is the later one.
    """

    id: str
    queue: str
    body: bytes
    due: datetime | None = None
    priority: int = 0
    hop: int = 0

    @property
    def dedup_key(self) -> str:
        """What makes a second publish of the same envelope a repeat: ``id``, or ``id:hop`` from the first hop on."""
        return f"{self.id}:{self.hop}" if self.hop else self.id


@final
class Delivery(Struct, frozen=True, kw_only=True, gc=False):
    """An envelope handed to one consumer under a lease.

    ``receipt`` names this handing-over among all of this broker's; ``delivery_count`` is 1 the first time and rises only
    when a lease ran out; ``lease_seconds`` is how long the lease lasts, counted from ``received_at`` (monotonic).
    """

    envelope: Envelope
    receipt: str
    delivery_count: int
    lease_seconds: float
    received_at: float

    @property
    def queue(self) -> str:
        return self.envelope.queue

    @property
    def is_first(self) -> bool:
        """Nobody can have worked on this task before."""
        return self.delivery_count == 1 and self.envelope.hop == 0


class Settled(StrEnum):
    """How a broker answers one settlement."""

    DONE = "done"
    """It took effect."""
    GONE = "gone"
    """There is no such message any more: most likely a repeat of a settlement whose answer was lost."""
    LOST = "lost"
    """The message is not this delivery's any more; nothing took effect."""


@final
class ResultRecord(Struct, frozen=True, kw_only=True, gc=False):
    """What a backend keeps about one task id, without reading ``body`` (an encoded `TaskResult`).

    ``hop`` and ``delivery_count`` say which try wrote it; `ResultRecord.may_follow` is the rule of who may overwrite whom.
    ``ttl`` (seconds) counts from the moment it is stored and is None until the task has ended. ``holder`` is the worker
    that runs it at most once: who else could say that it will never end?
    """

    id: str
    state: TaskState
    hop: int = 0
    delivery_count: int = 0
    body: bytes = b""
    ttl: float | None = None
    holder: str | None = None

    def may_follow(self, state: TaskState, hop: int, delivery_count: int) -> bool:
        """Whether this record may replace one of the given *state* and position.

        A terminal record is final until a replay writes PENDING at a higher hop; otherwise a lower position is late.
        """
        if state.is_terminal:
            return self.state is TaskState.PENDING and self.hop > hop
        return (self.hop, self.delivery_count) >= (hop, delivery_count)

    def ends(self, hop: int) -> bool:
        """Whether a message of this id that is delivered at *hop* is not to run: its task has ended.

        A dead letter's record is of the dead letter's hop: whoever is handed that very message may run it.
        """
        return self.state.is_terminal and (self.hop > hop or (self.hop == hop and self.state is not TaskState.DEAD_LETTERED))

    def buries(self, hop: int) -> bool:
        """Whether a message that is delivered at *hop* was to become the dead letter that this record speaks of.

        Its worker has stored the record in one store, and died before it settled the message in another.
        """
        return self.state is TaskState.DEAD_LETTERED and self.hop == hop + 1


@final
class Settlement(Struct, frozen=True, kw_only=True, gc=False):
    """How a delivery ends (or, with ``ends=False``, a note about it that leaves it alive), in one step.

    ``publish`` is what follows it; ``result`` is what the backend then says about its id.
    """

    delivery: Delivery
    publish: tuple[Envelope, ...] = ()
    result: ResultRecord | None = None
    ends: bool = True


@final
class TaskResult(Struct, frozen=True, kw_only=True):
    """All that is known about one task id: what ``AsyncResult.info()`` returns."""

    task_id: str
    state: TaskState
    task: str | None = None
    queue: str | None = None
    value: Any = None
    error_type: str | None = None
    error: str | None = None
    traceback: str | None = None
    retries: int = 0
    hop: int = 0
    delivery_count: int = 0
    worker_id: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    progress: tuple[float, float] | None = None
    ignored: bool = False
    reason: str | None = None


@final
class WorkerStats(Struct, frozen=True, kw_only=True):
    """What a worker says about itself, in its heartbeats too."""

    worker_id: str
    hostname: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    tasks_processed: int = 0
    tasks_failed: int = 0
    active_tasks: int = 0
    started_at: datetime | None = None
    last_heartbeat: datetime | None = None
    is_running: bool = False
    uptime_seconds: float = 0.0
    broker: str = ""
    backend: str | None = None

    @property
    def queue(self) -> str:
        """The queues, comma-joined, in order of precedence."""
        return ",".join(self.queues)


@final
class Event(Struct, frozen=True, kw_only=True):
    """One change of state, for event sinks: ``task.started``, ``worker.draining``, ``broker.lost`` and the like."""

    kind: str
    at: datetime
    worker_id: str | None = None
    task_id: str | None = None
    task: str | None = None
    queue: str | None = None
    retries: int | None = None
    reason: str | None = None
    seconds: float | None = None
