"""What an outcome means for the broker and the backend: pure, so its test is a table."""

from __future__ import annotations

import traceback
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, final

from msgspec import Struct

from chicory.codec import revise
from chicory.errors import RemoteError
from chicory.message import ResultRecord, Settlement, TaskState
from chicory.middleware import Attempt, Decision, Outcome
from chicory.record import ResultDocument, pack, unpack
from chicory.suspects import DELIVERED_BEFORE, put_back

if TYPE_CHECKING:
    from chicory.message import Delivery, Envelope

__all__ = [
    "Keeping",
    "describe",
    "former_end",
    "hand_back",
    "record_of",
    "sendable",
    "settlement",
    "started_record",
    "traceback_of",
]

_ERROR_LIMIT = 8 * 1024
_TRACEBACK_LIMIT = 48 * 1024


@final
class Keeping(Struct, frozen=True, kw_only=True):
    """For how many seconds records are kept once a task has ended: with its result, and where it ignores its result."""

    result_ttl: float
    ignored_ttl: float


def settlement(attempt: Attempt, outcome: Outcome, *, now: datetime, keeping: Keeping | None) -> Settlement:
    """How the delivery of *attempt* ends after *outcome*; without *keeping* nobody wants its result."""
    delivery = attempt.delivery
    follow_up = _follow_up(attempt, outcome, now)
    publish = outcome.publish if follow_up is None else (*outcome.publish, follow_up)
    record = None
    if keeping is not None and outcome.decision is not Decision.DEFER and attempt.ended is None:  # it is stored already
        record = record_of(attempt, outcome, now=now, keeping=keeping)
    return Settlement(delivery=delivery, publish=publish, result=record)


def hand_back(delivery: Delivery) -> Settlement:
    """Put a message back as if it had not been delivered this time: no retry and no delivery is counted."""
    if delivery.delivery_count > 1:
        return put_back(delivery)  # what it did to workers before is not forgotten
    return Settlement(delivery=delivery, publish=(revise(delivery.envelope),))


def record_of(attempt: Attempt, outcome: Outcome, *, now: datetime, keeping: Keeping) -> ResultRecord:
    """What the backend says about the task after *outcome*."""
    envelope = attempt.delivery.envelope
    state = _state(outcome)
    ignored = attempt.task is not None and attempt.task.options_of_task.ignore_result
    document = _document(attempt, outcome, now=now, ignored=ignored)
    if state is TaskState.RETRY:
        # It speaks for the message that follows: nothing the ended try still says may overwrite it.
        return ResultRecord(id=envelope.id, state=state, hop=envelope.hop + 1, body=pack(document))
    hop = envelope.hop
    if outcome.publish:  # a dead letter carries the id on
        hop = next((follow.hop for follow in outcome.publish if follow.id == envelope.id), hop)
    return ResultRecord(
        id=envelope.id,
        state=state,
        hop=hop,
        delivery_count=attempt.delivery.delivery_count,
        body=pack(document, None if ignored else outcome.result),
        ttl=keeping.ignored_ttl if ignored else keeping.result_ttl,
    )


def former_end(record: ResultRecord) -> Outcome:
    """What a task came to, by its record: of a delivery whose worker died before its message became a dead letter."""
    document = unpack(record)
    kind = document.error_type or "Exception"
    error = RemoteError.of(kind, (f"remote.{kind}",), document.error or "", document.traceback)
    return Outcome(error=error, final=True, decision=Decision.REJECT, reason=document.reason)


def started_record(attempt: Attempt, *, holds: bool = False) -> ResultRecord:
    """What the backend says while the task runs; with *holds*, naming the only worker that may ever end it."""
    delivery = attempt.delivery
    document = ResultDocument(
        task=attempt.task_name,
        queue=delivery.envelope.queue,
        retries=attempt.message.retries if attempt.message else 0,
        worker_id=attempt.worker_id,
        started_at=attempt.started_at,
        progress=attempt.progress,
    )
    return ResultRecord(
        id=delivery.envelope.id,
        state=TaskState.STARTED,
        hop=delivery.envelope.hop,
        delivery_count=delivery.delivery_count,
        body=pack(document),
        holder=attempt.worker_id if holds else None,
    )


def describe(error: BaseException) -> tuple[str, str]:
    """An error's type and text; the text is cut where it is longer than anyone reads."""
    try:
        text = sendable(str(error))
    except Exception:  # noqa: BLE001 - the edge of user code: an error may be unable to say what it is
        text = "(its text cannot be had)"
    return type(error).__qualname__, text if len(text) <= _ERROR_LIMIT else f"{text[:_ERROR_LIMIT]}…"


def sendable(text: str) -> str:
    """*text* as UTF-8 can carry it: file names from the system may hold what it cannot."""
    return text.encode("utf-8", "backslashreplace").decode()


def _state(outcome: Outcome) -> TaskState:
    if outcome.state is not None:
        return outcome.state
    if outcome.decision is Decision.RETRY:
        return TaskState.RETRY
    return TaskState.SUCCESS if outcome.error is None else TaskState.FAILURE


def _reason(outcome: Outcome) -> str | None:
    """Why it did not succeed, in one word."""
    return (outcome.reason or "error") if outcome.has_failed else None


def _follow_up(attempt: Attempt, outcome: Outcome, now: datetime) -> Envelope | None:
    if outcome.decision is not Decision.DEFER and outcome.decision is not Decision.RETRY:
        return None
    envelope, message = attempt.delivery.envelope, attempt.message
    eta = now + timedelta(seconds=outcome.delay) if outcome.delay > 0 else None
    changes = dict(outcome.changes)
    if message is not None and DELIVERED_BEFORE in message.headers:
        # It can be settled, so it is no suspect any more.
        headers = changes.get("headers", message.headers)
        changes["headers"] = {name: value for name, value in headers.items() if name != DELIVERED_BEFORE}
    if outcome.decision is Decision.DEFER:
        return revise(envelope, eta=eta, **changes)
    retries = message.retries if message else 0
    first = message.first_failure_at if message else None
    kind = describe(outcome.error)[0] if outcome.error is not None else None
    return revise(envelope, eta=eta, retries=retries + 1, first_failure_at=first or now, last_error=kind, **changes)


def _document(attempt: Attempt, outcome: Outcome, *, now: datetime, ignored: bool) -> ResultDocument:
    message, error = attempt.message, outcome.error
    kind, text = (None, None) if error is None else describe(error)
    return ResultDocument(
        task=attempt.task_name,
        queue=attempt.delivery.envelope.queue,
        retries=message.retries if message else 0,
        worker_id=attempt.worker_id,
        started_at=attempt.started_at,
        finished_at=now,
        error_type=kind,
        error=text,
        traceback=None if error is None else traceback_of(error),
        progress=attempt.progress,
        ignored=ignored,
        reason=_reason(outcome),
    )


def traceback_of(error: BaseException) -> str | None:
    """The traceback of an error as text, its beginning cut where it is longer than anyone reads; None if it was not raised."""
    if isinstance(error, RemoteError):
        return error.traceback
    if error.__traceback__ is None:
        return None
    text = sendable("".join(traceback.format_exception(error)))
    return text if len(text) <= _TRACEBACK_LIMIT else f"…{text[-_TRACEBACK_LIMIT:]}"
