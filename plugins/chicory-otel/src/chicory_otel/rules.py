"""What is decided about spans and labels: pure, so that its tests are tables."""

from __future__ import annotations

from datetime import datetime

from chicory.errors import LeaseLost, MessageDecodeError, ProcessDiedError, TaskNotFoundError, TaskTimeoutError
from chicory.plugin import Decision, Outcome, TaskMessage, TaskState
from chicory_otel import conventions as names
from chicory_otel.settings import TraceMode

__all__ = ["LINK_ONLY", "MOST_CREATE_SPANS", "NEW_TRACE_AFTER", "begins_trace", "error_type", "outcome_label", "settle_word"]

NEW_TRACE_AFTER = 60.0
"""Seconds: what was put off by more begins a trace of its own. A trace that lasts for days is shown by no tool."""
MOST_CREATE_SPANS = 128
"""Of a bulk publish: the SDK's limit of links in one span."""
LINK_ONLY = "otel_link_only"
"""Header of a message of a bulk publish that has no span of its own: its tries begin traces, else one would have thousands."""

_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (TaskTimeoutError, "timeout"),
    (LeaseLost, "lease_lost"),
    (ProcessDiedError, "crash"),
    (MessageDecodeError, "decode"),
    (TaskNotFoundError, "unknown_task"),
)


def begins_trace(message: TaskMessage, *, hop: int, now: datetime, mode: TraceMode) -> bool:
    """Whether a try of *message* is the root of a new trace, linked to what created it, and not a child of that.

    By default it is where it was put off by more than `NEW_TRACE_AFTER`: it is due that much later than it was sent (a
    countdown, an eta, a long wait before a retry), or it was put back that much later (a replayed dead letter). How long it
    waits for a free worker makes no difference.
    """
    if mode is not TraceMode.AUTO:
        return mode is TraceMode.LINK
    if LINK_ONLY in message.headers:
        return True
    if message.enqueued_at is None:
        return False
    was_put_back = hop > 0 and message.retries == 0
    due = message.eta or (now if was_put_back else message.enqueued_at)
    return (due - message.enqueued_at).total_seconds() > NEW_TRACE_AFTER


def error_type(error: BaseException) -> str:
    """A word of low cardinality for *error*: never its text, which may hold what nobody is to see."""
    return next((word for kind, word in _WORDS if isinstance(error, kind)), type(error).__qualname__)


def settle_word(outcome: Outcome) -> str:
    """The operation that settles a delivery after *outcome*."""
    if outcome.decision is Decision.RETRY:
        return names.RETRY
    if outcome.decision is Decision.DEFER:
        return names.RELEASE
    return names.DEAD if outcome.state is TaskState.DEAD_LETTERED else names.ACK


def outcome_label(outcome: Outcome) -> str | None:
    """How a try ended, for ``chicory.tasks``; None if it does not count, for the message was put back."""
    if outcome.decision is Decision.DEFER:
        return None
    if outcome.decision is Decision.RETRY:
        return "retry"
    if outcome.error is None:
        return "success"
    if isinstance(outcome.error, LeaseLost):
        return "lost"
    if outcome.state is TaskState.DEAD_LETTERED:
        return "dead"
    return "timeout" if isinstance(outcome.error, TaskTimeoutError) else "failure"
