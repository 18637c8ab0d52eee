"""Values of the contract as rows that scripts read, and back.

All rows of a call travel as one MessagePack array: redis-py and the server handle one long argument in less than half the time
of many short ones. Texts and bytes are both strings there, for Redis' ``cmsgpack`` knows no other.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, final

from msgspec import Raw, msgpack

from chicory.plugin import Envelope, ResultRecord, TaskState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chicory.plugin import Settlement

__all__ = ["Queues", "base_key", "envelope_of", "milliseconds", "pack", "record_of", "record_row"]

Cell = str | int | Raw

_MICRO = 1_000_000
_TOP = 9
_DEAD_LETTERS = ".dlq"
pack = msgpack.Encoder().encode


def base_key(prefix: str, queue: str) -> str:
    """What all keys of *queue* begin with. Its name is their hash tag, and that of the queue with its dead letters too.

    >>> base_key("chicory", "mail"), base_key("chicory", "mail.dlq")
    ('chicory:{mail}', 'chicory:{mail}.dlq')
    """
    name = queue.removesuffix(_DEAD_LETTERS) or queue
    return f"{prefix}:{{{name}}}{queue[len(name) :]}"


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, not less than one."""
    return max(1, round(seconds * 1000))


@final
class Queues:
    """The queues of one call: rows name each by its number, from 1, among the keys of the call."""

    def __init__(self, prefix: str, queues: Iterable[str] = ()) -> None:
        self._prefix = prefix
        self._numbers: dict[str, int] = {}
        for queue in queues:
            self.number(queue)

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    @property
    def keys(self) -> list[str]:
        return [base_key(self._prefix, queue) for queue in self._numbers]

    def number(self, queue: str) -> int:
        """The number of *queue*: a new one if it has none yet."""
        number = self._numbers.get(queue)
        if number is None:
            number = self._numbers[queue] = len(self._numbers) + 1
        return number

    def message(self, envelope: Envelope) -> tuple[Cell, ...]:
        """id, queue, level, hop, due in µs, due in ms (rounded up: never early), body."""
        level = min(max(envelope.priority, 0), _TOP)
        head = (envelope.id, self.number(envelope.queue), level, envelope.hop)
        if envelope.due is None:
            return (*head, "-", 0, _text(envelope.body))
        due = round(envelope.due.timestamp() * _MICRO)
        return (*head, str(due), max(0, -(-due // 1000)), _text(envelope.body))

    def receipt(self, receipt: str) -> tuple[Cell, ...]:
        """queue, level, entry, delivery count: what a receipt says."""
        queue, level, entry, count = receipt.split(" ")
        return (self.number(queue), int(level), entry, int(count))

    def settlements(self, settlements: Sequence[Settlement], *, joined: bool) -> list[Cell]:
        """The rows of ``settle.lua``; their results only if *joined*."""
        rows: list[Cell] = []
        for s in settlements:
            result = s.result if joined else None
            own = s.delivery.envelope
            rows += self.receipt(s.delivery.receipt)
            rows += (own.id, own.hop, 1 if s.ends else 0, len(s.publish), 0 if result is None else 1)
            for envelope in s.publish:
                rows += self.message(envelope)
            if result is not None:
                rows += record_row(result, has_message=True)
        return rows


def _text(data: bytes) -> Raw:
    """*data* as a MessagePack string (str 32), whatever is in it."""
    return Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)


def envelope_of(queue: str, level: int, id_: bytes, hop: bytes, due: bytes, body: bytes) -> Envelope:
    """An envelope from what a script says about it."""
    when = None if due == b"-" else datetime.fromtimestamp(int(due) / _MICRO, UTC)
    return Envelope(id=id_.decode(), queue=queue, body=body, due=when, priority=level, hop=int(hop))


def record_row(record: ResultRecord, *, has_message: bool = False) -> tuple[Cell, ...]:
    """id, flag, state, hop, count, holder, ttl in ms, body."""
    flag = "T" if record.state.is_terminal else "M" if has_message else "N"
    ttl: Cell = "-" if record.ttl is None else milliseconds(record.ttl)
    place = (record.hop, record.delivery_count, record.holder or "")
    return (record.id, flag, record.state.value, *place, ttl, _text(record.body))


def record_of(task_id: str, value: bytes | None) -> ResultRecord | None:
    """A record from its value; None if there is none."""
    if value is None:
        return None
    _, state, hop, count, holder, body = value.split(b"\n", 5)
    known: dict[str, Any] = {"holder": holder.decode() or None, "body": body}
    return ResultRecord(id=task_id, state=TaskState(state.decode()), hop=int(hop), delivery_count=int(count), **known)
