"""What a worker counts, logs and tells about its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from chicory.events import listening, tell
from chicory.logs import get_logger
from chicory.message import Event, TaskState
from chicory.middleware import Attempt, Decision, Outcome
from chicory.verdict import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chicory.clock import Clock
    from chicory.message import Delivery
    from chicory.offers import EventSink, Listener

__all__ = ["Tally"]

_EVENTS = {Decision.RETRY: "task.retried", Decision.DEFER: "task.deferred"}
_ENDS = ("task.succeeded", "task.failed", "task.dead_lettered", *_EVENTS.values())


@final
class Tally:
    """The pump's `Watch`: counts for the heartbeat, logs by event, and events for the sinks of plugins."""

    def __init__(self, worker_id: str, clock: Clock, sinks: Sequence[EventSink | Listener]) -> None:
        self._worker_id, self._clock, self._sinks = worker_id, clock, tuple(sinks)
        self._tells_starts, self._tells_ends = bool(listening(sinks, "task.started")), bool(listening(sinks, *_ENDS))
        self._log = get_logger("worker", worker_id=worker_id)
        self._debug = self._log.isEnabledFor(10)  # asked once: two log lines cost as much as a small task
        self.is_connected = True
        """Whether the broker answered the last time that the pump asked it."""
        self.processed = 0
        self.failed = 0

    def task_started(self, attempt: Attempt) -> None:
        if self._debug:
            self._log.debug("task_started", task=attempt.task_name, task_id=attempt.delivery.envelope.id)
        if self._tells_starts:
            self._tell("task.started", attempt)

    def task_ended(self, attempt: Attempt, outcome: Outcome) -> None:
        if outcome.decision is not Decision.DEFER:
            self.processed += 1
        if outcome.has_failed:
            self.failed += 1
        if outcome.error is not None:
            self._log_error(attempt, outcome, outcome.error)
        elif self._debug:
            self._log.debug("task_succeeded", task=attempt.task_name, task_id=attempt.delivery.envelope.id)
        if self._tells_ends:
            ended = "task.failed" if outcome.has_failed else "task.succeeded"
            self._tell(_EVENTS.get(outcome.decision, ended), attempt, outcome)
            if outcome.state is TaskState.DEAD_LETTERED:
                self._tell("task.dead_lettered", attempt, outcome)

    def lease_lost(self, delivery: Delivery) -> None:
        task_id, now = delivery.envelope.id, self._clock.now()
        self._log.warning("lease_lost", task_id=task_id)
        self.tell(
            Event(kind="task.lease_lost", at=now, worker_id=self._worker_id, task_id=task_id, queue=delivery.envelope.queue)
        )

    def broker_lost(self, error: Exception) -> None:
        self.is_connected = False
        self._log.warning("broker_lost", error_type=type(error).__qualname__, reason=str(error))
        self.changed("broker.lost", reason=type(error).__qualname__)

    def broker_found(self) -> None:
        self.is_connected = True
        self._log.info("broker_found")
        self.changed("broker.connected")

    def changed(self, kind: str, reason: str | None = None) -> None:
        """Tell that the worker's own state has changed."""
        self.tell(Event(kind=kind, at=self._clock.now(), worker_id=self._worker_id, reason=reason))

    def tell(self, event: Event) -> None:
        """Give *event* to every sink."""
        tell(self._sinks, event)

    def _log_error(self, attempt: Attempt, outcome: Outcome, error: BaseException) -> None:
        facts = {"task": attempt.task_name, "task_id": attempt.delivery.envelope.id, "error_type": describe(error)[0]}
        if outcome.decision is Decision.RETRY:
            self._log.warning("retry_scheduled", delay=round(outcome.delay, 3), **facts)
        elif outcome.has_failed:
            self._log.error("task_failed", reason=outcome.reason or "error", **facts)

    def _tell(self, kind: str, attempt: Attempt, outcome: Outcome | None = None) -> None:
        now = self._clock.now()
        self.tell(
            Event(
                kind=kind,
                at=now,
                worker_id=self._worker_id,
                task_id=attempt.delivery.envelope.id,
                task=attempt.task_name,
                queue=attempt.delivery.envelope.queue,
                retries=attempt.message.retries if attempt.message else None,
                reason=outcome.reason if outcome else None,
                seconds=(now - attempt.started_at).total_seconds() if outcome and attempt.started_at else None,
            )
        )
