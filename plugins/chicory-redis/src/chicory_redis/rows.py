"""Values of the contract as arguments of scripts, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chicory.plugin import Envelope, ResultRecord, TaskState

if TYPE_CHECKING:
    from chicory_redis.server import Arg

__all__ = ["envelope_of", "milliseconds", "publish_row", "record_of", "record_row"]

_MICRO = 1_000_000
_TOP = 9


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, not less than one."""
    return max(1, round(seconds * 1000))


def publish_row(envelope: Envelope) -> tuple[Arg, ...]:
    """id, queue, level, hop, due in µs, due in ms (rounded up: never early), body."""
    level = min(max(envelope.priority, 0), _TOP)
    if envelope.due is None:
        return (envelope.id, envelope.queue, level, envelope.hop, "-", 0, envelope.body)
    due = round(envelope.due.timestamp() * _MICRO)
    return (envelope.id, envelope.queue, level, envelope.hop, due, max(0, -(-due // 1000)), envelope.body)


def envelope_of(queue: str, level: int, id_: bytes, hop: bytes, due: bytes, body: bytes) -> Envelope:
    """An envelope from what a script says about it."""
    when = None if due == b"-" else datetime.fromtimestamp(int(due) / _MICRO, UTC)
    return Envelope(id=id_.decode(), queue=queue, body=body, due=when, priority=level, hop=int(hop))


def record_row(record: ResultRecord, *, has_message: bool = False) -> tuple[Arg, ...]:
    """id, flag, state, hop, count, holder, ttl in ms, body."""
    flag = "T" if record.state.is_terminal else "M" if has_message else "N"
    ttl: Arg = "-" if record.ttl is None else milliseconds(record.ttl)
    return (record.id, flag, record.state, record.hop, record.delivery_count, record.holder or "", ttl, record.body)


def record_of(task_id: str, value: bytes | None) -> ResultRecord | None:
    """A record from its value; None if there is none."""
    if value is None:
        return None
    _, state, hop, count, holder, body = value.split(b"\n", 5)
    known: dict[str, Any] = {"holder": holder.decode() or None, "body": body}
    return ResultRecord(id=task_id, state=TaskState(state.decode()), hop=int(hop), delivery_count=int(count), **known)
